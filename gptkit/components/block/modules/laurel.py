"""Runtime module of block `laurel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.block.laurel import LaurelSpec

__all__ = ["Laurel"]


class Laurel(Block):
    """Runtime part of `LaurelSpec`."""

    def __init__(self, spec: LaurelSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.left = context.linear(context.d_model, spec.rank, bias=False)
        self.right = context.linear(spec.rank, context.d_model, bias=False)
        self.laurel_norm = parts.norm.build(context, dim=context.d_model)
        self.attention = parts.attention.build(context)
        self.attention_output_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        self.feedforward_output_norm = parts.norm.build(context, dim=context.d_model)
        self.dropout = spec.dropout

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        a_BTE = self.attention_norm(x_BTE)
        laurel_BTE = a_BTE + self.laurel_norm(self.right(self.left(a_BTE)))
        mixed_BTE = self.attention_output_norm(self.attention(a_BTE, forward))
        x_BTE = (x_BTE + dropout(mixed_BTE, self.dropout, self.training) + laurel_BTE) * 0.5**0.5
        fed_BTE = self.feedforward_output_norm(self.feedforward(self.feedforward_norm(x_BTE), forward))
        y_BTE: Tensor = x_BTE + dropout(fed_BTE, self.dropout, self.training)
        return y_BTE
