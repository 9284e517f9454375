"""Runtime of `hybrid`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.base import Attention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.forward import Forward

if TYPE_CHECKING:
    from gptkit.components.attention.hybrid import HybridSpec

__all__ = ["Hybrid"]


class Hybrid(Attention):
    """Runtime of `hybrid`. The two parts have a decoding state each; this module has none of its own."""

    def __init__(self, spec: HybridSpec, context: BuildContext) -> None:
        super().__init__()
        self.attention_scale, self.attention_input_scale = spec.attention_scale, spec.attention_input_scale
        self.recurrence_scale, self.recurrence_input_scale = spec.recurrence_scale, spec.recurrence_input_scale
        self.attention = spec.attention.build(context)
        self.recurrence = spec.recurrence.build(spec.inner_context("recurrence", context))

    @property
    def prefix_problem(self) -> str | None:
        return self.attention.prefix_problem or self.recurrence.prefix_problem

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        attended_BTE: Tensor = self.attention(_scaled(x_BTE, self.attention_input_scale), forward)
        recurrent_BTE: Tensor = self.recurrence(_scaled(x_BTE, self.recurrence_input_scale), forward)
        return torch.add(_scaled(attended_BTE, self.attention_scale), recurrent_BTE, alpha=self.recurrence_scale)

    def new_state(self, allocation: Allocation) -> None:
        """None: the parts have states."""


def _scaled(x_BTE: Tensor, factor: float) -> Tensor:
    return x_BTE if factor == 1 else x_BTE * factor
