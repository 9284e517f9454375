"""Runtime module of block `sandwich`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.block.sandwich import SandwichSpec

__all__ = ["Sandwich"]


class Sandwich(Block):
    """Runtime part of `SandwichSpec`."""

    def __init__(self, spec: SandwichSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.residual_scale = spec.residual_scale
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.attention = parts.attention.build(context)
        self.attention_output_norm = parts.norm.build(context, dim=context.d_model)
        normed = spec.feedforward_input_norm
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model) if normed else None
        self.feedforward = parts.feedforward.build(context)
        self.feedforward_output_norm = parts.norm.build(context, dim=context.d_model)
        self.dropout = spec.dropout
        self.output_scale = (
            None if spec.output_scale is None else nn.Parameter(torch.ones(1), requires_grad=spec.output_scale == "learned")
        )

    def initial(self) -> dict[str, Initial]:
        return {} if self.output_scale is None else {"output_scale": "ones"}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        mixed_BTE = self.attention_output_norm(self.attention(self.attention_norm(x_BTE), forward))
        x_BTE = torch.add(x_BTE, dropout(mixed_BTE, self.dropout, self.training), alpha=self.residual_scale)
        input_BTE = x_BTE if self.feedforward_norm is None else self.feedforward_norm(x_BTE)
        fed_BTE = self.feedforward_output_norm(self.feedforward(input_BTE, forward))
        x_BTE = torch.add(x_BTE, dropout(fed_BTE, self.dropout, self.training), alpha=self.residual_scale)
        return x_BTE if self.output_scale is None else x_BTE * self.output_scale.to(x_BTE.dtype)
