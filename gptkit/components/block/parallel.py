"""Attention and feed-forward side by side."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward

__all__ = ["Parallel", "ParallelSpec"]


class ParallelSpec(BlockSpec):
    """Gives attention and feed-forward the same input and adds both to the shortcut (GPT-J, GPT-NeoX, Falcon, Cohere).

    Formula:
        x ← x + residual_scale · (dropout(attention(norm₁(x))) + dropout(feedforward(norm₂(x))))
        With `norms: 1` both branches read norm₁(x).

    Shapes:
        (B, T, d_model) → (B, T, d_model)

    Paper:
        https://arxiv.org/abs/2204.02311
    """

    name: Literal["parallel"] = "parallel"
    norms: Literal[1, 2] = Field(1, description="One norm for both branches (GPT-J, Cohere), or one each (GPT-NeoX).")
    dropout: float = Field(0.0, description="Share of each branch's output that is dropped in training.", ge=0, lt=1)
    residual_scale: float = Field(1.0, description="What a branch is multiplied by before it is added (Granite: 0.22).")

    def build(self, context: BuildContext) -> Block:
        return Parallel(self, context)


class Parallel(Block):
    """The runtime part of `ParallelSpec`. `feedforward_norm` is None where the branches share `attention_norm`."""

    def __init__(self, spec: ParallelSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.residual_scale = spec.residual_scale
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.attention = parts.attention.build(context)
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model) if spec.norms == 2 else None
        self.feedforward = parts.feedforward.build(context)
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout > 0 else nn.Identity()

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        normed_BTE = self.attention_norm(x_BTE)
        mixed_BTE = self.dropout(self.attention(normed_BTE, forward))
        if self.feedforward_norm is not None:
            normed_BTE = self.feedforward_norm(x_BTE)
        branches_BTE = mixed_BTE + self.dropout(self.feedforward(normed_BTE, forward))
        return torch.add(x_BTE, branches_BTE, alpha=self.residual_scale)
