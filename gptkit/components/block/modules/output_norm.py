"""Runtime module of block `output-norm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.block.output_norm import OutputNormSpec

__all__ = ["OutputNorm"]


class OutputNorm(Block):
    """Runtime part of `OutputNormSpec`."""

    def __init__(self, spec: OutputNormSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.residual_scale = spec.residual_scale
        self.attention = parts.attention.build(context)
        self.attention_output_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        self.feedforward_output_norm = parts.norm.build(context, dim=context.d_model)
        self.dropout = spec.dropout

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        mixed_BTE = dropout(self.attention_output_norm(self.attention(x_BTE, forward)), self.dropout, self.training)
        x_BTE = torch.add(x_BTE, mixed_BTE, alpha=self.residual_scale)
        fed_BTE = dropout(self.feedforward_output_norm(self.feedforward(x_BTE, forward)), self.dropout, self.training)
        return torch.add(x_BTE, fed_BTE, alpha=self.residual_scale)
