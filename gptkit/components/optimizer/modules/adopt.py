"""ADOPT."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn

from gptkit.components.optimizer.modules.elementwise import Batch, Elementwise

__all__ = ["ADOPT"]


class ADOPT(Elementwise):
    """Adam whose gradients are divided by the second moment of earlier gradients, before they are averaged.

    Args:
        betas: decay rates of the moving averages of the divided gradient, and of the squared gradient.
        eps: smallest divisor.
        clip_exponent: exponent of the number of updates that bounds a divided gradient; None for no bound.
    """

    entries: ClassVar[tuple[str, ...]] = ("average", "square")

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        clip_exponent: float | None,
        cautious: bool,
    ) -> None:
        super().__init__(params, lr=lr, cautious=cautious)
        self.betas = betas
        self.eps = eps
        self.clip_exponent = clip_exponent

    def update(self, batch: Batch, group: dict[str, Any]) -> None:
        average, square = batch.tensors("average"), batch.tensors("square")
        (beta1, beta2), gradients = self.betas, batch.gradients
        if batch.step == 1:
            torch._foreach_addcmul_(square, gradients, gradients)
            return
        divisors = list(torch._foreach_sqrt(square))
        torch._foreach_clamp_min_(divisors, self.eps)
        normalized = list(torch._foreach_div(gradients, divisors))
        if self.clip_exponent is not None:
            bound = (batch.step - 1) ** self.clip_exponent
            torch._foreach_clamp_min_(normalized, -bound)
            torch._foreach_clamp_max_(normalized, bound)
        torch._foreach_lerp_(average, normalized, 1 - beta1)
        self.descend(batch, average, group)
        torch._foreach_mul_(square, beta2)
        torch._foreach_addcmul_(square, gradients, gradients, 1 - beta2)
