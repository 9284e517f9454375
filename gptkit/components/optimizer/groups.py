"""Parameter groups, as the built-in optimizers share them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from gptkit.nn.parameters import Resolved

__all__ = ["Grouped", "can_fuse", "decay_groups", "trainable"]


@dataclass(frozen=True)
class Grouped:
    """A trainable parameter and its options: declared by the model's modules, else by shape and place."""

    parameter: nn.Parameter
    options: Resolved


def trainable(model: nn.Module) -> list[Grouped]:
    """The parameters that take gradients, tied ones once, in the model's order."""
    from gptkit.nn.parameters import parameter_options

    parameters = dict(model.named_parameters())
    return [Grouped(parameters[name], options) for name, options in parameter_options(model).items()]


def decay_groups(
    parameters: Collection[Grouped], learning_rate: float, weight_decay: float, *, everywhere: bool = False
) -> list[dict[str, Any]]:
    """Groups with and without weight decay, for each factor of the learning rate; empty ones are omitted.

    Args:
        parameters: what to group.
        learning_rate: the peak rate, which a parameter's factor multiplies.
        weight_decay: the decay of those that decay.
        everywhere: let all of them decay.
    """
    groups = []
    for rate in dict.fromkeys(grouped.options.rate for grouped in parameters):
        for decays in (True, False):
            chosen = [
                grouped.parameter
                for grouped in parameters
                if grouped.options.rate == rate and (everywhere or grouped.options.decay) == decays
            ]
            if chosen:
                decay = weight_decay if decays else 0.0
                groups.append({"params": chosen, "lr": learning_rate * rate, "weight_decay": decay})
    return groups


def can_fuse(parameters: Iterable[Grouped]) -> bool:
    """Whether torch has a fused kernel for all of these: one pass over memory a step, not a dozen."""
    each = [grouped.parameter for grouped in parameters]
    return all(parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda") for parameter in each)
