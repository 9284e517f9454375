"""Parameter groups of the built-in optimizers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from gptkit.kinds.optimizer import ParameterGroupSpec
    from gptkit.nn.parameters import Resolved

__all__ = ["Grouped", "can_fuse", "decay_groups", "trainable"]


@dataclass(frozen=True)
class Grouped:
    """A trainable parameter and its options: from the spec's groups, the model's modules, or its shape and module."""

    parameter: nn.Parameter
    options: Resolved


def trainable(model: nn.Module, groups: Sequence[ParameterGroupSpec] = ()) -> list[Grouped]:
    """Return the trainable parameters, tied ones once, in the model's order.

    Args:
        model: the model.
        groups: the groups of the optimizer's spec.
    """
    from gptkit.nn.parameters import parameter_options

    parameters = dict(model.named_parameters())
    return [Grouped(parameters[name], options) for name, options in parameter_options(model, groups).items()]


def decay_groups(
    parameters: Collection[Grouped], learning_rate: float, weight_decay: float, *, everywhere: bool = False
) -> list[dict[str, Any]]:
    """Return groups with and without weight decay, for each group of the spec and factor of the learning rate.

    Args:
        parameters: the parameters to group.
        learning_rate: the peak rate, multiplied by a parameter's factor.
        weight_decay: the weight decay of the parameters that decay, unless their group of the spec has another one.
        everywhere: apply weight decay to all parameters.
    """
    result: list[dict[str, Any]] = []
    for label, rate in dict.fromkeys((grouped.options.label, grouped.options.rate) for grouped in parameters):
        members = [each for each in parameters if (each.options.label, each.options.rate) == (label, rate)]
        named = {} if label is None else {"label": label}
        for decays in (True, False):
            chosen = [each for each in members if (everywhere or each.options.decay) == decays]
            if not chosen:
                continue
            decay, own = weight_decay if decays else 0.0, chosen[0].options.weight_decay
            group = {"params": [each.parameter for each in chosen], "lr": learning_rate * rate}
            result.append({**group, "weight_decay": decay if own is None else own, **named})
    return result


def can_fuse(parameters: Iterable[Grouped]) -> bool:
    """Return whether torch has a fused kernel for all of these parameters, with one pass over memory per step."""
    each = [grouped.parameter for grouped in parameters]
    return all(parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda") for parameter in each)
