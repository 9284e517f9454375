"""Runtime module of block `sandwich`."""

from __future__ import annotations

from math import sqrt
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
        # Terms of the stream after the attention: the embedding, and two for each layer.
        self.n_terms = 2 * (parts.index + 1) if spec.depth_scaled else None
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
        x_BTE = self._sum(x_BTE, mixed_BTE, 0)
        input_BTE = x_BTE if self.feedforward_norm is None else self.feedforward_norm(x_BTE)
        fed_BTE = self.feedforward_output_norm(self.feedforward(input_BTE, forward))
        x_BTE = self._sum(x_BTE, fed_BTE, 1)
        return x_BTE if self.output_scale is None else x_BTE * self.output_scale.to(x_BTE.dtype)

    def _sum(self, x_BTE: Tensor, branch_BTE: Tensor, n_more: int) -> Tensor:
        """Return the stream with the output of a branch, which has `n_more` terms more than after the attention."""
        branch_BTE = dropout(branch_BTE, self.dropout, self.training)
        if self.n_terms is None:
            return torch.add(x_BTE, branch_BTE, alpha=self.residual_scale)
        n_terms = self.n_terms + n_more
        return torch.add(x_BTE * sqrt((n_terms - 1) / n_terms), branch_BTE, alpha=self.residual_scale / sqrt(n_terms))
