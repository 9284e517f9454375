"""Parameter groups, as the optimizers here share them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["can_fuse", "decay_groups", "trainable"]


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that take gradients, tied ones once, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float, everywhere: bool) -> list[dict[str, Any]]:
    """Groups with and without weight decay; empty ones are left out.

    Matrices and tables decay; norms' scales and biases do not, unless `everywhere`.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for parameter in parameters:
        (decayed if everywhere or parameter.ndim >= 2 else spared).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def can_fuse(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether torch has a fused kernel for all of these: one pass over memory a step, not a dozen."""
    return all(parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda") for parameter in parameters)
