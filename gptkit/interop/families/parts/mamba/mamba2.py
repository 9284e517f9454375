"""Mamba-2 layers: what hybrid families have in common in how they name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.interop.families.parts.hybrids import layers_with, numbered_rules
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.mamba.limits import read_limits, write_limits
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["INERT_MAMBA", "TENSORS", "mamba_rules", "read_mamba", "write_mamba"]

INERT_MAMBA = keys("mamba_chunk_size num_logits_to_keep use_mamba_kernels z_loss_coefficient")
"""Keys of how the layers are computed, or that matter in training only."""

SIZES = {"n_groups": ("mamba_n_groups", 1), "d_state": ("mamba_d_state", 256), "conv_width": ("mamba_d_conv", 4)}
FLAGS = {"conv_bias": ("mamba_conv_bias", True), "bias": ("mamba_proj_bias", False)}
TENSORS = {"input": "in_proj", "conv": "conv1d", "decay_log": "A_log", "step_bias": "dt_bias", "skip": "D"}
TENSORS |= {"output": "out_proj", "norm_weight": "norm.weight"}
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
    attention = {
        "name": "mamba2",
        "n_heads": n_heads,
        "d_head": d_values // max(1, n_heads),
        **{own: config.integer(*key) for own, key in SIZES.items()},
        **{own: config.flag(*key) for own, key in FLAGS.items()},
        "activation": read_activation(config, *activation),
        **read_limits(config),
        "eps": config.number(*eps),
    }
    return {"attention": attention, "position": "none"}


def write_mamba(layers: Sequence[Any], d_model: int) -> dict[str, Any]:
    """Return the keys of Mamba-2 layers; `layers` are the specs of all layers."""
    matching = layers_with(layers, "mamba2")
    if not matching:
        return {"mamba_n_heads": 1, "mamba_d_head": "auto"}  # which suit any width
    attention = matching[0].attention
    return {
        **{key: getattr(attention, own) for own, (key, _) in (SIZES | FLAGS).items()},
        "mamba_n_heads": attention.n_heads,
        "mamba_d_head": attention.d_head,
        "mamba_expand": attention.n_heads * attention.d_head // d_model,
        "hidden_act": write_activation(attention.activation),
        **write_limits(attention),
    }


def mamba_rules(model: Any, external: str = "model.layers.{}.mamba") -> list[Rule]:
    """Return the rules of Mamba-2 layers; they come before those of attention layers."""
    return numbered_rules(model, "mamba2", external, TENSORS)
