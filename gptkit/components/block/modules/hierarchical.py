"""Runtime module of block `hierarchical`.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial

if TYPE_CHECKING:
    from gptkit.components.block.hierarchical import HierarchicalSpec

__all__ = ["Hierarchical"]


class Hierarchical(Block):
    """Runtime part of `HierarchicalSpec`. Each application of a stack has states of its own in a cache."""

    def __init__(self, spec: HierarchicalSpec, context: BuildContext) -> None:
        super().__init__()
        norm = context.parts.norm
        self.low_cycles, self.gradients = spec.low_cycles, spec.gradients()
        self.low = nn.ModuleList(spec.block.build(context) for _ in range(spec.blocks))
        self.low_norm = norm.build(context, dim=context.d_model)
        self.high = nn.ModuleList(spec.block.build(context) for _ in range(spec.blocks))
        self.high_norm = norm.build(context, dim=context.d_model)
        self.start = nn.Parameter(torch.zeros(context.d_model), requires_grad=spec.start == "learned")

    def initial(self) -> dict[str, Initial]:
        return {"start": "zeros"}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        high_BTE, low_BTE = x_BTE, self.start.to(x_BTE.dtype).expand_as(x_BTE)
        for n_gradients in self.gradients:
            for cycle in range(self.low_cycles):
                low_BTE = low_BTE + high_BTE
                for block in self.low:
                    low_BTE = block(low_BTE, forward)
                low_BTE = self.low_norm(low_BTE)
                if cycle < self.low_cycles - n_gradients:
                    low_BTE = low_BTE.detach()
            high_BTE = high_BTE + low_BTE
            for block in self.high:
                high_BTE = block(high_BTE, forward)
            high_BTE = self.high_norm(high_BTE)
        return high_BTE
