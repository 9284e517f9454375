"""Mamba-2 layers: what hybrid families have in common in how they name them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gptkit.interop.families._common import keys, read_activation, write_activation
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = [
    "INERT_MAMBA",
    "TENSORS",
    "mamba_rules",
    "read_limits",
    "read_mamba",
    "read_mamba_types",
    "recurrent",
    "write_limits",
    "write_mamba",
    "write_mamba_types",
]

INERT_MAMBA = keys("mamba_chunk_size num_logits_to_keep use_mamba_kernels z_loss_coefficient")
"""Keys of how the layers are computed, or that matter in training only."""

TYPES = {"mamba": "linear_attention", "attention": "full_attention"}
"""Former names of the types of layers."""

INFINITY = {"__float__": "Infinity"}
"""An infinite number, as transformers writes it."""

SIZES = {"n_groups": ("mamba_n_groups", 1), "d_state": ("mamba_d_state", 256), "conv_width": ("mamba_d_conv", 4)}


TENSORS = {
    "input": "in_proj",
    "conv": "conv1d",
    "decay_log": "A_log",
    "step_bias": "dt_bias",
    "skip": "D",
    "output": "out_proj",
    "norm_weight": "norm.weight",
}
"""External names of a layer's tensors, by the native ones."""


def read_mamba(
    config: ExternalConfig, eps: tuple[str, float], activation: tuple[str, str], d_values: int | None = None
) -> dict[str, Any]:
    """Return what a layer with Mamba-2 in place of attention overrides, of keys that begin with `mamba_`.

    Args:
        config: the configuration.
        eps: key of the norm's epsilon, and its default.
        activation: key of the activation, and its default.
        d_values: features of the values of all heads; mamba_expand · hidden_size by default.
    """
    n_heads = config.integer("mamba_n_heads", 128)
    expected = "" if d_values else "mamba_expand · hidden_size = "
    d_values = config.integer("mamba_expand", 2) * config.integer("hidden_size") if d_values is None else d_values
    if config.value("mamba_d_head", "auto") != "auto" and config.integer("mamba_d_head") * n_heads != d_values:
        config.refuse("mamba_d_head", f"{n_heads} heads of that size should have {expected}{d_values} features")
    low, high = read_limits(config)
    attention = {
        "name": "mamba2",
        "n_heads": n_heads,
        "d_head": d_values // max(1, n_heads),
        **{native: config.integer(*key) for native, key in SIZES.items()},
        "conv_bias": config.flag("mamba_conv_bias", True),
        "bias": config.flag("mamba_proj_bias", False),
        "activation": read_activation(config, *activation),
        "step_min": low,
        "step_max": None if math.isinf(high) else high,
        "eps": config.number(*eps),
    }
    return {"attention": attention, "position": "none"}


def read_limits(config: ExternalConfig) -> tuple[float, float]:
    """Return `time_step_limit`."""
    limits = [math.inf if limit == INFINITY else limit for limit in config.items("time_step_limit", [0.0, math.inf])]
    if len(limits) != 2 or not all(type(limit) in (int, float) for limit in limits) or not 0 <= limits[0] < limits[1]:
        config.refuse("time_step_limit", "it should be two numbers from 0 on, the smaller one first")
    return limits[0], limits[1]


def write_limits(attention: Any) -> dict[str, Any]:
    """`time_step_limit` of a model."""
    if (attention.step_min, attention.step_max) == (0, None):
        return {}  # the default; infinity is not valid JSON
    return {"time_step_limit": [attention.step_min, math.inf if attention.step_max is None else attention.step_max]}


def recurrent(layers: Sequence[Any]) -> list[Any]:
    """The layers with Mamba-2 in place of attention."""
    return [layer for layer in layers if layer.attention.name == "mamba2"]


def write_mamba(layers: Sequence[Any], d_model: int) -> dict[str, Any]:
    """The keys of Mamba-2 layers; `layers` are the specs of all layers."""
    attention = recurrent(layers)[0].attention
    return {
        **{key: getattr(attention, native) for native, (key, _) in SIZES.items()},
        "mamba_n_heads": attention.n_heads,
        "mamba_d_head": attention.d_head,
        "mamba_expand": attention.n_heads * attention.d_head // d_model,
        "mamba_conv_bias": attention.conv_bias,
        "mamba_proj_bias": attention.bias,
        "hidden_act": write_activation(attention.activation),
        **write_limits(attention),
    }


def read_mamba_types(config: ExternalConfig, n_layers: int) -> list[bool]:
    """Return whether each layer has Mamba-2 in place of attention: `layer_types`, also with its former names."""
    key = config.alias("layer_types", "layers_block_type")
    types = [TYPES.get(each, each) for each in config.items(key, ["linear_attention"] * n_layers)]
    if len(types) != n_layers or not set(types) <= set(TYPES.values()):
        config.refuse(key, f"it should name linear_attention or full_attention for each of {n_layers} layers")
    return [each == "linear_attention" for each in types]


def write_mamba_types(layers: Sequence[Any]) -> list[str]:
    """`layer_types` of a hybrid."""
    return ["linear_attention" if layer.attention.name == "mamba2" else "full_attention" for layer in layers]


def mamba_rules(model: Any, external: str = "model.layers.{}.mamba") -> list[Rule]:
    """Where Mamba-2 layers are; they come before the rules of attention layers."""
    indices = [index for index, layer in enumerate(model.layer_specs()) if layer.attention.name == "mamba2"]
    return [
        Rule(f"blocks.{index}.attention.{native}", f"{external.format(index)}.{name}")
        for index in indices
        for native, name in TENSORS.items()
    ]
