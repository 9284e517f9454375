"""AdamW without a schedule: an average of the weights takes the place of the decay of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gptkit.components.optimizer.modules.elementwise import Batch, Elementwise

__all__ = ["ScheduleFreeAdamW"]


class ScheduleFreeAdamW(Elementwise):
    """Schedule-free AdamW. The model's parameters are y, at which gradients are computed.

    The state has z (`base`). The average x is computed from both when it is needed, as y = (1 - β₁)·z + β₁·x.

    Args:
        betas: weight of x in y, and decay rate of the moving average of the squared gradient.
        eps: added to the denominator.
    """

    entries: ClassVar[tuple[str, ...]] = ("square",)

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        cautious: bool,
    ) -> None:
        super().__init__(params, lr=lr, cautious=cautious)
        self.betas = betas
        self.eps = eps

    def new_state(self, parameter: Tensor) -> dict[str, Any]:
        return {**super().new_state(parameter), "base": parameter.detach().clone(), "weight": 0.0}

    def key(self, state: dict[str, Any]) -> Any:
        return state["step"], state["weight"]

    def update(self, batch: Batch, group: dict[str, Any]) -> None:
        base, square = batch.tensors("base"), batch.tensors("square")
        (beta1, beta2), gradients, rate = self.betas, batch.gradients, group["lr"]
        torch._foreach_mul_(square, beta2)
        torch._foreach_addcmul_(square, gradients, gradients, 1 - beta2)
        denominators = list(torch._foreach_sqrt(square))
        torch._foreach_div_(denominators, math.sqrt(1 - beta2**batch.step))
        torch._foreach_add_(denominators, self.eps)
        changes = list(torch._foreach_div(gradients, denominators))
        torch._foreach_mul_(changes, -rate)
        self.decay(changes, batch.parameters, gradients, group)
        weight = batch.states[0]["weight"] + rate**2
        share = rate**2 / weight if weight else 0.0
        for state in batch.states:
            state["weight"] = weight
        # With z' = z + change and x' = (1 - share)·x + share·z', y' follows from y and z without x.
        torch._foreach_lerp_(batch.parameters, base, share)
        torch._foreach_add_(batch.parameters, changes, alpha=1 - beta1 * (1 - share))
        torch._foreach_add_(base, changes)

    @torch.no_grad()
    def evaluation_weights(self) -> dict[Tensor, Tensor]:
        """Return x of every parameter; before its first update, the parameter itself."""
        result: dict[Tensor, Tensor] = {}
        for parameter in (each for group in self.param_groups for each in group["params"]):
            weight, state = parameter.detach(), self.state.get(parameter)
            result[parameter] = weight if not state else weight + (weight - state["base"]) * (1 / self.betas[0] - 1)
        return result
