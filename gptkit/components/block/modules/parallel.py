"""Runtime module of block `parallel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.block.parallel import ParallelSpec

__all__ = ["Parallel"]


class Parallel(Block):
    """Runtime part of `ParallelSpec`. `feedforward_norm` is None where the branches share `attention_norm`."""

    def __init__(self, spec: ParallelSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.residual_scale = spec.residual_scale
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.attention = parts.attention.build(context)
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model) if spec.norms == 2 else None
        self.feedforward = parts.feedforward.build(context)
        self.dropout = spec.dropout

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        normed_BTE = self.attention_norm(x_BTE)
        mixed_BTE = dropout(self.attention(normed_BTE, forward), self.dropout, self.training)
        if self.feedforward_norm is not None:
            normed_BTE = self.feedforward_norm(x_BTE)
        branches_BTE = mixed_BTE + dropout(self.feedforward(normed_BTE, forward), self.dropout, self.training)
        return torch.add(x_BTE, branches_BTE, alpha=self.residual_scale)
