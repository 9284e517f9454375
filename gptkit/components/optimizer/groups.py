"""Parameter groups, as the optimizers here share them."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["can_fuse", "decay_groups", "stacked_biases", "trainable"]


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that take gradients, tied ones once, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def stacked_biases(model: nn.Module) -> set[int]:
    """The identities of biases that are stacked over experts: of two dimensions, and yet no matrices."""
    from gptkit.nn.stacked import StackedLinear

    return {id(module.bias) for module in model.modules() if isinstance(module, StackedLinear) and module.bias is not None}


def decay_groups(
    parameters: Iterable[nn.Parameter], weight_decay: float, everywhere: bool, biases: Container[int] = ()
) -> list[dict[str, Any]]:
    """Groups with and without weight decay; empty ones are omitted.

    Matrices and tables decay; weights of norms and biases do not, unless `everywhere`.

    Args:
        biases: identities of further parameters that do not decay: `stacked_biases`.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for parameter in parameters:
        matrix = parameter.ndim >= 2 and id(parameter) not in biases
        (decayed if everywhere or matrix else spared).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def can_fuse(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether torch has a fused kernel for all of these: one pass over memory a step, not a dozen."""
    return all(parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda") for parameter in parameters)
