"""The block of GPT-2 and of most models since: normalise, transform, add."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward

__all__ = ["PreNorm", "PreNormSpec"]


class PreNormSpec(BlockSpec):
    """Normalises what goes into each branch; the shortcut itself stays untouched from the first block to the last.

    Formula:
        x ← x + residual_scale · dropout(attention(norm(x)))
        x ← x + residual_scale · dropout(feedforward(norm(x)))

    Shapes:
        (B, T, d_model) → (B, T, d_model)

    Paper:
        https://arxiv.org/abs/2002.04745

    Notes:
        `shortcut: false` leaves out the additions, to be looked at: it trains badly. With shortcuts the gradient of the
        embedding is about as large at any depth. Without, every block multiplies it, and by how much depends on width,
        norm and starting values: by the default ones hardly any arrives at d_model 64, while large ones make it grow.
        The blocks' own gradients need not show it, since norms stretch small vectors again. To see it, call
        `model(ids, targets).loss.backward()` at two depths and compare `model.embedding.table.weight.grad.abs().mean()`.
    """

    name: Literal["pre-norm"] = "pre-norm"
    dropout: float = Field(0.0, description="Share of each branch's output that is dropped in training.", ge=0, lt=1)
    residual_scale: float = Field(1.0, description="What a branch is multiplied by before it is added (Granite: 0.22).")
    shortcut: bool = Field(True, description="Add each branch to its input; without it the branch replaces the input.")

    def build(self, context: BuildContext) -> Block:
        return PreNorm(self, context)


class PreNorm(Block):
    """The runtime part of `PreNormSpec`."""

    def __init__(self, spec: PreNormSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.residual_scale = spec.residual_scale
        self.shortcut = spec.shortcut
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.attention = parts.attention.build(context)
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout > 0 else nn.Identity()

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        x_BTE = self._join(x_BTE, self.attention(self.attention_norm(x_BTE), forward))
        return self._join(x_BTE, self.feedforward(self.feedforward_norm(x_BTE), forward))

    def _join(self, x_BTE: Tensor, branch_BTE: Tensor) -> Tensor:
        branch_BTE = self.dropout(branch_BTE)
        if self.shortcut:
            return torch.add(x_BTE, branch_BTE, alpha=self.residual_scale)
        return branch_BTE * self.residual_scale if self.residual_scale != 1 else branch_BTE
