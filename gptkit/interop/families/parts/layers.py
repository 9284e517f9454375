"""Layers that differ: their types in configurations, and what they override as a pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from gptkit.kinds.external_config import ExternalConfig

__all__ = ["every", "nth", "pattern", "read_each", "read_types"]

_NONE: Mapping[str, str] = MappingProxyType({})


def pattern(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Return the overrides of layers as the shortest repeating pattern; None if no layer overrides anything."""
    if not any(layers):
        return None
    period = next(n for n in range(1, len(layers) + 1) if all(layers[i] == layers[i % n] for i in range(len(layers))))
    entries: list[dict[str, Any]] = []
    for layer in layers[:period]:
        if entries and {k: v for k, v in entries[-1].items() if k != "repeat"} == layer:
            entries[-1]["repeat"] += 1
        else:
            entries.append({"repeat": 1, **layer})
    return entries


def nth(config: ExternalConfig, key: str, usual: int, n_layers: int) -> list[bool]:
    """Return `every` for the number of a key."""
    return every(config.integer(key, usual), n_layers)


def every(n: int, n_layers: int) -> list[bool]:
    """Return whether each layer is an n-th one: layers n - 1, 2n - 1, …; the sign of n has no effect, 0 means none."""
    return [n != 0 and (index + 1) % n == 0 for index in range(n_layers)]


def read_each(config: ExternalConfig, key: str, usual: Sequence[Any]) -> list[Any]:
    """Return the list of a key, which has a value for each layer; `usual` where it is missing."""
    values = config.items(key, list(usual))
    if len(values) != len(usual):
        config.refuse(key, f"it should have a value for each of {len(usual)} layers")
    return values


def read_types(
    config: ExternalConfig,
    n_layers: int,
    usual: Sequence[str],
    known: Sequence[str],
    key: str = "layer_types",
    former: Mapping[str, str] = _NONE,
) -> list[str]:
    """Return the type of each layer: the list of a key.

    Args:
        config: the configuration.
        n_layers: number of layers.
        usual: the types of all layers where the configuration has none.
        known: the types that the family has; any other is an error.
        key: the key of the list.
        former: types by their former names.
    """
    types = [former.get(each, each) for each in config.items(key, list(usual))]
    if len(types) != n_layers or not set(types) <= set(known):
        config.refuse(key, f"it should name {', '.join(known[:-1])} or {known[-1]} for each of {n_layers} layers")
    return types
