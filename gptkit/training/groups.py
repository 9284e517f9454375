"""Optimizers of models, and the learning rates of their parameter groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from torch import nn

from gptkit.core.errors import TrainingError
from gptkit.kinds.optimizer import OptimizerSpec
from gptkit.nn.parameters import parameter_options

__all__ = ["GroupRates", "build_optimizer"]


def build_optimizer(spec: OptimizerSpec, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a model's trainable parameters.

    Raises:
        TrainingError: a group of the spec has no parameters, the optimizer ignores the groups, it lacks a parameter, or it
            lacks the weights to evaluate with that its spec declares.
    """
    labels = {name: options.label for name, options in parameter_options(model, spec.groups).items()}
    optimizer = spec.build(model)
    by_id = {id(parameter): labels.get(name) for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        labels_in_group = {by_id.get(id(parameter)) for parameter in group["params"]}
        if len(labels_in_group) > 1 or labels_in_group != {group.get("label")}:
            raise TrainingError(
                f"training.optimizer.groups: optimizer {spec.name!r} does not support groups",
                hint="Remove `groups`, or choose another optimizer. Its author can build the parameter groups with "
                "gptkit.components.optimizer.groups.",
            )
    _require_all(spec, model, optimizer)
    if spec.averages and not hasattr(optimizer, "evaluation_weights"):
        raise TrainingError(
            f"optimizer {spec.name!r} declares `averages`, but what it builds has no method `evaluation_weights`",
            hint="Define the method, which returns a dict from each parameter to the tensor to evaluate with, or remove "
            "`averages`.",
        )
    return optimizer


def _require_all(spec: OptimizerSpec, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer that lacks a trainable parameter, which would silently keep its first values."""
    held = Counter(id(parameter) for group in optimizer.param_groups for parameter in group["params"])
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad and not held[id(parameter)]]
    if names:
        rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
        method = f"{type(spec).__module__}.{type(spec).__qualname__}.build"
        raise TrainingError(
            f"optimizer {spec.name!r}: {method} omits the parameters {', '.join(names[:3])}{rest}",
            hint="Pass all of the model's parameters that require a gradient, each in one group; "
            "gptkit.components.optimizer.groups builds the groups.",
        )


class GroupRates:
    """Learning rates of an optimizer's parameter groups: the peak rates, by which steps are scaled, and metrics.

    Args:
        optimizer: a new optimizer, whose rates are the peak rates.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._peaks = [float(group["lr"]) for group in optimizer.param_groups]
        # Read now, since a restored optimizer has the groups of its checkpoint.
        self._labels = [group.get("label", "other") for group in optimizer.param_groups]

    def set_factor(self, factor: float) -> None:
        """Set the learning rate of every group to a multiple of its peak rate."""
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    def metrics(self) -> Mapping[str, float]:
        """Return the learning rate of the first group, and those of all if their peak rates differ.

        A group of the spec has its patterns in the name: ``learning_rate/embedding``; all other parameters are
        ``learning_rate/other``. Further rates of the same name are numbered from 2, such as those of the AdamW in Muon.
        """
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        result = {"learning_rate": rates[0]}
        if len(set(self._peaks)) == 1:
            return result
        known: dict[str, list[float]] = {}
        for label, peak, rate in zip(self._labels, self._peaks, rates, strict=True):
            peaks = known.setdefault(label, [])
            if peak not in peaks:
                peaks.append(peak)
                result[f"learning_rate/{label}" + (f".{len(peaks)}" if len(peaks) > 1 else "")] = rate
        return result
