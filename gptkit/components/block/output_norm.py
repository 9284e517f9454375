"""Norms on the branches' outputs only."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.block import BlockSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward

__all__ = ["OutputNorm", "OutputNormSpec"]


class OutputNormSpec(BlockSpec):
    """Normalises what each branch adds to the shortcut, and nothing that goes in (OLMo 2 and 3).

    Formula:
        x ← x + residual_scale · dropout(norm(attention(x)))
        x ← x + residual_scale · dropout(norm(feedforward(x)))

    Shapes:
        (B, T, d_model) → (B, T, d_model)

    Paper:
        https://arxiv.org/abs/2501.00656
    """

    name: Literal["output-norm"] = "output-norm"
    dropout: float = Field(0.0, description="Share of each branch's output that is dropped in training.", ge=0, lt=1)
    residual_scale: float = Field(1.0, description="What a branch is multiplied by before it is added (Granite: 0.22).")

    def build(self, context: BuildContext) -> Block:
        return OutputNorm(self, context)


class OutputNorm(Block):
    """The runtime part of `OutputNormSpec`."""

    def __init__(self, spec: OutputNormSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.residual_scale = spec.residual_scale
        self.attention = parts.attention.build(context)
        self.attention_output_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        self.feedforward_output_norm = parts.norm.build(context, dim=context.d_model)
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout > 0 else nn.Identity()

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        mixed_BTE = self.dropout(self.attention_output_norm(self.attention(x_BTE, forward)))
        x_BTE = torch.add(x_BTE, mixed_BTE, alpha=self.residual_scale)
        fed_BTE = self.dropout(self.feedforward_output_norm(self.feedforward(x_BTE, forward)))
        return torch.add(x_BTE, fed_BTE, alpha=self.residual_scale)
