"""Parameter groups of the built-in optimizers."""

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
    """A trainable parameter and its options, declared by the model's modules or derived from its shape and module."""

    parameter: nn.Parameter
    options: Resolved


def trainable(model: nn.Module) -> list[Grouped]:
    """Return the trainable parameters, tied ones once, in the model's order."""
    from gptkit.nn.parameters import parameter_options

    parameters = dict(model.named_parameters())
    return [Grouped(parameters[name], options) for name, options in parameter_options(model).items()]


def decay_groups(
    parameters: Collection[Grouped], learning_rate: float, weight_decay: float, *, everywhere: bool = False
) -> list[dict[str, Any]]:
    """Return groups with and without weight decay, for each factor of the learning rate; empty ones are omitted.

    Args:
        parameters: the parameters to group.
        learning_rate: the peak rate, multiplied by a parameter's factor.
        weight_decay: the weight decay of the parameters that decay.
        everywhere: apply weight decay to all parameters.
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
    """Return whether torch has a fused kernel for all of these parameters, with one pass over memory per step."""
    each = [grouped.parameter for grouped in parameters]
    return all(parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda") for parameter in each)
