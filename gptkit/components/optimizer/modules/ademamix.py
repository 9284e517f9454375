"""AdEMAMix."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn

from gptkit.components.optimizer.modules.elementwise import Batch, Elementwise

__all__ = ["AdEMAMix", "warm_alpha", "warm_beta3"]


class AdEMAMix(Elementwise):
    """Adam with a second, slower average of the gradient.

    Args:
        betas: decay rates of the fast average, of the average of squares, and of the slow average.
        alpha: factor of the slow average.
        alpha_warmup_steps: number of updates in which the factor rises.
        beta3_warmup_steps: number of updates in which the decay rate of the slow average rises.
        eps: added to the denominator.
    """

    entries: ClassVar[tuple[str, ...]] = ("fast", "slow", "square")

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float, float],
        alpha: float,
        alpha_warmup_steps: int,
        beta3_warmup_steps: int,
        eps: float,
        cautious: bool,
    ) -> None:
        super().__init__(params, lr=lr, cautious=cautious)
        self.betas = betas
        self.alpha = alpha
        self.alpha_warmup_steps = alpha_warmup_steps
        self.beta3_warmup_steps = beta3_warmup_steps
        self.eps = eps

    def update(self, batch: Batch, group: dict[str, Any]) -> None:
        fast, slow, square = (batch.tensors(entry) for entry in self.entries)
        (beta1, beta2, beta3), gradients, step = self.betas, batch.gradients, batch.step
        torch._foreach_lerp_(fast, gradients, 1 - beta1)
        torch._foreach_lerp_(slow, gradients, 1 - warm_beta3(step, beta1, beta3, self.beta3_warmup_steps))
        torch._foreach_mul_(square, beta2)
        torch._foreach_addcmul_(square, gradients, gradients, 1 - beta2)
        denominators = list(torch._foreach_sqrt(square))
        torch._foreach_div_(denominators, math.sqrt(1 - beta2**step))
        torch._foreach_add_(denominators, self.eps)
        updates = list(torch._foreach_mul(slow, warm_alpha(step, self.alpha, self.alpha_warmup_steps)))
        torch._foreach_add_(updates, fast, alpha=1 / (1 - beta1**step))
        torch._foreach_div_(updates, denominators)
        self.descend(batch, updates, group)


def warm_alpha(step: int, alpha: float, warmup_steps: int) -> float:
    """Return the factor of the slow average at an update, counted from 1: it rises linearly."""
    return alpha * min(1.0, step / warmup_steps) if warmup_steps else alpha


def warm_beta3(step: int, beta1: float, beta3: float, warmup_steps: int) -> float:
    """Return the decay rate of the slow average at an update, counted from 1.

    It rises from `beta1` such that the half-life of the average, log 0.5 / log β - 1, rises linearly.
    """
    if step >= warmup_steps or beta3 == 0:
        return beta3
    passed, last = step / warmup_steps, math.log(beta3)
    ratio = last / math.log(beta1) if beta1 else 0.0
    return min(beta3, math.exp(last / ((1 - passed) * ratio + passed)))
