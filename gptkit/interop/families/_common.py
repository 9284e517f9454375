"""What many families have in common: names of activations, patterns of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.kinds.external_config import ExternalConfig

__all__ = [
    "all_but_every",
    "every",
    "keys",
    "pattern",
    "read_activation",
    "read_windows",
    "write_activation",
    "write_windows",
]

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh",
    "gelu_fast": "gelu-tanh",
    "linear": "identity",
    "quick_gelu": "quick-gelu",
    "relu": "relu",
    "relu2": "relu-squared",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
_NAMES = {"gelu-tanh": "gelu_pytorch_tanh", "identity": "linear", "quick-gelu": "quick_gelu", "relu-squared": "relu2"}


def keys(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def read_activation(config: ExternalConfig, key: str, default: str) -> str:
    """The activation that a key names."""
    found = config.text(key, default)
    if found not in _ACTIVATIONS:
        config.refuse(key, f"gptkit supports {', '.join(sorted(_ACTIVATIONS))}")
    return _ACTIVATIONS[found]


def write_activation(activation: Any) -> str:
    """What transformers calls an activation."""
    name: str = activation.name
    return _NAMES.get(name, name)


def pattern(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """What each layer overrides, as the shortest pattern that repeats; None where no layer overrides anything."""
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


def every(n: int, n_layers: int) -> list[bool]:
    """Whether each layer is an n-th one: layers n - 1, 2n - 1, …"""
    return [n > 0 and (index + 1) % n == 0 for index in range(n_layers)]


def all_but_every(n: int, n_layers: int) -> list[bool]:
    """The other layers."""
    return [not each for each in every(n, n_layers)]


def read_windows(config: ExternalConfig, n_layers: int, default: Sequence[bool]) -> list[bool]:
    """Whether each layer has a sliding window: `layer_types`, or the family's own pattern."""
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
