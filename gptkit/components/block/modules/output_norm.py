"""The runtime module of block `output-norm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward

if TYPE_CHECKING:
    from gptkit.components.block.output_norm import OutputNormSpec

__all__ = ["OutputNorm"]


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
