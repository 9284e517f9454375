"""Parts shared by many families: names of activations, patterns of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from gptkit.core.errors import ExternalModelError
from gptkit.core.registry import Registry, default_registry
from gptkit.kinds.external_config import ExternalConfig

__all__ = [
    "all_but_every",
    "every",
    "keys",
    "nth",
    "pattern",
    "read_activation",
    "read_windows",
    "temperature",
    "write_activation",
    "write_windows",
]


def keys(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def read_activation(config: ExternalConfig, key: str, default: str) -> str:
    """Return the name of the activation that a key names (`ActivationSpec.external_names`)."""
    result = config.text(key, default)
    known = _activations(config.registry)
    if result not in known:
        clashes = "".join(f"; {clash}" for clash in (config.registry or default_registry()).clashes("activation").values())
        config.refuse(key, f"no installed activation has that name; known are {', '.join(sorted(known))}{clashes}")
    if len(known[result]) > 1:
        config.refuse(key, f"several activations have that name: {', '.join(known[result])}")
    return known[result][0]


def write_activation(activation: Any) -> str:
    """Return the name that transformers has for an activation.

    Raises:
        ExternalModelError: it has none.
    """
    if not activation.external_names:
        raise ExternalModelError(
            f"the activation {activation.name!r} has no name in configurations of external models",
            hint="Choose another activation, or declare `external_names` in its class.",
        )
    name: str = activation.external_names[0]
    return name


def _activations(registry: Registry | None) -> dict[str, list[str]]:
    """Return the names of registered activations by their external names."""
    known: dict[str, list[str]] = {}
    for name, entry in (registry or default_registry()).entries("activation").items():
        for external in cast("Any", entry.cls).external_names:
            known.setdefault(external, []).append(name)
    return known


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
    """Return whether each layer is an n-th one: layers n - 1, 2n - 1, …"""
    return [n > 0 and (index + 1) % n == 0 for index in range(n_layers)]


def all_but_every(n: int, n_layers: int) -> list[bool]:
    """The other layers."""
    return [not each for each in every(n, n_layers)]


def read_windows(config: ExternalConfig, n_layers: int, default: Sequence[bool]) -> list[bool]:
    """Return whether each layer has a sliding window: `layer_types`, or the family's own pattern."""
    types = config.items("layer_types", ["sliding_attention" if slides else "full_attention" for slides in default])
    if len(types) != n_layers or not set(types) <= {"sliding_attention", "full_attention"}:
        config.refuse("layer_types", f"it should name sliding_attention or full_attention for each of {n_layers} layers")
    return [kind == "sliding_attention" for kind in types]


def write_windows(model: Any) -> dict[str, Any]:
    """`sliding_window` and `layer_types` of a model."""
    windows = [layer.attention.window for layer in model.layer_specs()]
    return {
        "sliding_window": next((window for window in windows if window), None),
        "layer_types": ["sliding_attention" if window else "full_attention" for window in windows],
    }


def temperature(config: ExternalConfig) -> dict[str, Any] | str:
    """Return the position that scales queries by the logarithm of their number, as in Llama 4, if it is switched on."""
    tuning = {"strength": config.number("attn_scale", 0.1), "interval": config.integer("floor_scale", 8192)}
    return {"name": "query-temperature", **tuning} if config.flag("attn_temperature_tuning", True) else "none"
