"""Layers of gated delta rule: what hybrid families have in common in how they name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.hybrids import layers_with, numbered_rules, read_linear, write_linear
from gptkit.interop.families.parts.layers import every
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["DELTA", "PATTERN", "delta_rules", "read_delta", "read_delta_types", "write_delta"]

DELTA = "gated-delta"
"""Name of the attention of these layers."""
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


def read_delta(config: ExternalConfig, eps: float, defaults: dict[str, int] | None = None) -> dict[str, Any]:
    """Return what a layer with linear attention overrides.

    Args:
        config: the configuration.
        eps: epsilon of the norm of each head's output.
        defaults: defaults of fields that differ from `SIZES`.
    """
    config.only("hidden_act", "silu", why="linear attention has it fixed here, and shares the key")
    sizes = {field: config.integer(key, (defaults or {}).get(field, default)) for field, (key, default) in SIZES.items()}
    attention = {"name": DELTA, "norm": {"name": "rms", "eps": eps}, **sizes}
    return {"attention": attention, "position": "none"}


def read_delta_types(config: ExternalConfig, n_layers: int) -> list[bool]:
    """Return whether each layer has linear attention: `layer_types`, or all but every fourth."""
    return read_linear(config, [not each for each in every(config.integer(PATTERN, 4), n_layers)])


def write_delta(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of linear attention; `layers` are the specs of all layers."""
    linear = layers_with(layers, DELTA)[0].attention
    return {**write_linear(layers, DELTA), **{key: getattr(linear, field) for field, (key, _) in SIZES.items()}}


def delta_rules(model: Any, norm: str = "norm", output: str = "out_proj") -> list[Rule]:
    """Return the rules of what all families store in the same way; they come before those of full attention."""
    names = {"conv": "conv1d", "norm": norm, "decay_log": "A_log", "decay_bias": "dt_bias"}
    common = [Rule(f"blocks.*.attention.{own}", f"model.layers.*.linear_attn.{name}") for own, name in names.items()]
    return [*common, *numbered_rules(model, DELTA, "model.layers.{}.linear_attn", {"output": output})]
