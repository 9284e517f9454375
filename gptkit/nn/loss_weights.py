"""Weights of the terms of the training loss, which may change from step to step.

A module that adds terms to the training loss, such as a head or a router, has an attribute ``loss_weights``: a dictionary of
the current weights by name, which are read in every step. ``loss_weight_limits`` of its class has upper bounds, exclusive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from gptkit.core.suggestions import did_you_mean

__all__ = ["loss_weight_problems", "loss_weights"]


def loss_weights(model: nn.Module) -> dict[str, list[dict[str, float]]]:
    """Return the dictionaries that hold each loss weight of a model, by name; several modules may have the same one."""
    holders: dict[str, list[dict[str, float]]] = {}
    for module in model.modules():
        weights = getattr(module, "loss_weights", None)
        if isinstance(weights, dict):
            for name in weights:
                holders.setdefault(name, []).append(weights)
    return holders


def loss_weight_problems(model: nn.Module, stages: Sequence[Mapping[str, float]]) -> Iterator[tuple[int, str, str]]:
    """Yield the problems of requested weights: the index of the mapping, the name of the weight, and a message."""
    known = list(loss_weights(model))
    limits: dict[str, float] = {}
    for module in model.modules():
        limits |= getattr(module, "loss_weight_limits", {})
    for index, requested in enumerate(stages):
        for name, value in requested.items():
            if name not in known:
                yield (
                    index,
                    name,
                    f"unknown term of the training loss; {did_you_mean(name, known, 'terms')}",
                )
            elif value >= limits.get(name, float("inf")):
                yield index, name, f"must be below {limits[name]:g}"
