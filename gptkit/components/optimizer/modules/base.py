"""Bases of optimizers: what all steps have in common, and what those have that update one parameter after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Optimizer", "ParameterByParameter"]


class Optimizer(torch.optim.Optimizer):
    """Base of optimizers that update one group of parameters after the other."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.update_groups()
        return loss

    def update_groups(self) -> None:
        """Update the parameters of all groups, and their state."""
        for group in self.param_groups:
            self.update_group(group)

    def update_group(self, group: dict[str, Any]) -> None:
        """Update the parameters of a group, and their state."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither update_group nor update_groups")


class ParameterByParameter(Optimizer):
    """Base of optimizers that update one parameter after the other, since an update needs all entries of a matrix.

    Args:
        params: parameters or groups of them.
        lr: the learning rate.
        cautious: apply weight decay only to entries that the update moves towards zero.
    """

    def __init__(
        self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], *, lr: float, cautious: bool = False
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.0})
        self.cautious = cautious

    def update_group(self, group: dict[str, Any]) -> None:
        for parameter in group["params"]:
            if parameter.grad is not None:
                self.update(parameter, parameter.grad, self.state[parameter], group)

    def update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Update a parameter and its state, which is empty before the first update."""
        raise NotImplementedError(f"{type(self).__name__} does not override update")

    def descend(self, parameter: Tensor, update: Tensor, group: dict[str, Any], factor: float = 1.0) -> None:
        """Apply weight decay, then subtract the update; both are multiplied by the group's learning rate.

        Args:
            parameter: the parameter.
            update: what is subtracted, of the parameter's shape.
            group: the parameter's group.
            factor: further factor of the update.
        """
        decay = group["lr"] * group["weight_decay"]
        if decay and self.cautious:
            parameter.sub_(torch.where(update * parameter >= 0, parameter, 0), alpha=decay)
        elif decay:
            parameter.mul_(1 - decay)
        parameter.add_(update, alpha=-group["lr"] * factor)
