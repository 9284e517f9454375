"""Lion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn

from gptkit.components.optimizer.modules.elementwise import Batch, Elementwise

__all__ = ["Lion"]


class Lion(Elementwise):
    """Optimizer whose update is the sign of a momentum.

    Args:
        betas: decay rates of the average in the update, and of the average that is kept.
    """

    entries: ClassVar[tuple[str, ...]] = ("average",)

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        cautious: bool,
    ) -> None:
        super().__init__(params, lr=lr, cautious=cautious)
        self.betas = betas

    def update(self, batch: Batch, group: dict[str, Any]) -> None:
        average, (beta1, beta2) = batch.tensors("average"), self.betas
        updates = list(torch._foreach_lerp(average, batch.gradients, 1 - beta1))
        torch._foreach_sign_(updates)
        self.descend(batch, updates, group)
        torch._foreach_lerp_(average, batch.gradients, 1 - beta2)
