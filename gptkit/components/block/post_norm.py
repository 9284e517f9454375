"""The block of the original transformer: transform, add, normalise."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward

__all__ = ["PostNorm", "PostNormSpec"]


class PostNormSpec(BlockSpec):
    """Normalises the sum of each branch and its shortcut, as the original transformer, GPT-1 and OPT-350m do.

    Formula:
        x ← norm(x + residual_scale · dropout(attention(x)))
        x ← norm(x + residual_scale · dropout(feedforward(x)))

    Shapes:
        (B, T, d_model) → (B, T, d_model)

    Paper:
        https://arxiv.org/abs/1706.03762

    Notes:
        The last block ends with a norm, so a model of such blocks has no final norm of its own.
    """

    name: Literal["post-norm"] = "post-norm"
    dropout: float = Field(0.0, description="Share of each branch's output that is dropped in training.", ge=0, lt=1)
    residual_scale: float = Field(1.0, description="What a branch is multiplied by before it is added (Granite: 0.22).")

    @property
    def final_norm(self) -> bool:
        return False

    def build(self, context: BuildContext) -> Block:
        return PostNorm(self, context)


class PostNorm(Block):
    """The runtime part of `PostNormSpec`."""

    def __init__(self, spec: PostNormSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.residual_scale = spec.residual_scale
        self.attention = parts.attention.build(context)
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model)
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout > 0 else nn.Identity()

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        branch_BTE = self.dropout(self.attention(x_BTE, forward))
        x_BTE = self.attention_norm(torch.add(x_BTE, branch_BTE, alpha=self.residual_scale))
        branch_BTE = self.dropout(self.feedforward(x_BTE, forward))
        y_BTE: Tensor = self.feedforward_norm(torch.add(x_BTE, branch_BTE, alpha=self.residual_scale))
        return y_BTE
