"""Layers of gated delta rule: what hybrid families have in common in how they name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families._common import every
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["PATTERN", "SIZES", "full_layers", "linear_rules", "read_linear", "read_linear_types", "write_linear"]

SIZES = {
    "n_heads": ("linear_num_key_heads", 16),
    "n_value_heads": ("linear_num_value_heads", 32),
    "d_key": ("linear_key_head_dim", 128),
    "d_value": ("linear_value_head_dim", 128),
    "conv_width": ("linear_conv_kernel_dim", 4),
}
"""Fields of linear attention, with their keys and the defaults of these."""

PATTERN = "full_attention_interval"
"""Key of the interval between layers with full attention."""


def read_linear(config: ExternalConfig, eps: float, defaults: dict[str, int] | None = None) -> dict[str, Any]:
    """Return what a layer with linear attention overrides.

    Args:
        config: the configuration.
        eps: epsilon of the norm of each head's output.
        defaults: defaults of fields that differ from `SIZES`.
    """
    config.only("hidden_act", "silu", why="linear attention has it fixed here, and shares the key")
    sizes = {field: config.integer(key, (defaults or {}).get(field, default)) for field, (key, default) in SIZES.items()}
    attention = {"name": "gated-delta", "norm": {"name": "rms", "eps": eps}, **sizes}
    return {"attention": attention, "position": "none"}


def read_linear_types(config: ExternalConfig, n_layers: int) -> list[bool]:
    """Return whether each layer has linear attention: `layer_types`, or all but every fourth."""
    full = every(config.integer(PATTERN, 4), n_layers)
    types = config.items("layer_types", ["full_attention" if each else "linear_attention" for each in full])
    if len(types) != n_layers or not set(types) <= {"linear_attention", "full_attention"}:
        config.refuse("layer_types", f"it should name linear_attention or full_attention for each of {n_layers} layers")
    return [each == "linear_attention" for each in types]


def full_layers(layers: Sequence[Any]) -> list[Any]:
    """Return the layers with full attention."""
    return [layer for layer in layers if layer.attention.name != "gated-delta"]


def write_linear(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of linear attention; `layers` are the specs of all layers."""
    linear = next(layer.attention for layer in layers if layer.attention.name == "gated-delta")
    types = ["linear_attention" if layer.attention.name == "gated-delta" else "full_attention" for layer in layers]
    return {"layer_types": types, **{key: getattr(linear, field) for field, (key, _) in SIZES.items()}}


def linear_rules(model: Any, norm: str = "norm", output: str = "out_proj") -> list[Rule]:
    """Return the rules of what all families store in the same way; they come before those of full attention."""
    native, external = "blocks.*.attention", "model.layers.*.linear_attn"
    names = {"conv": "conv1d", "norm": norm, "decay_log": "A_log", "decay_bias": "dt_bias"}
    layers = [index for index, layer in enumerate(model.layer_specs()) if layer.attention.name == "gated-delta"]
    return [
        *(Rule(f"{native}.{inner}", f"{external}.{outer}") for inner, outer in names.items()),
        *(Rule(f"blocks.{i}.attention.output", f"model.layers.{i}.linear_attn.{output}") for i in layers),
    ]
