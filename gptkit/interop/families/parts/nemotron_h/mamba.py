"""Layers of Nemotron-H with Mamba-2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.interop.families.parts.nemotron_h.layers import of_type
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["SYNONYMS", "read_mamba", "write_mamba"]

SIZES = {
    "n_heads": ("mamba_num_heads", 128),
    "d_head": ("mamba_head_dim", 64),
    "n_groups": ("n_groups", 8),
    "d_state": ("ssm_state_size", 128),
    "conv_width": ("conv_kernel", 4),
}
FLAGS = {"conv_bias": ("use_conv_bias", True), "bias": ("use_bias", False)}
STEP, ACTIVATION = ("time_step_min", 0.001), ("mamba_hidden_act", "silu")
SYNONYMS = {"attention_head_dim": "head_dim", **dict.fromkeys(("norm_eps", "rms_norm_eps"), "layer_norm_epsilon")}
"""Names in released configurations that transformers does not read, by those that it reads."""


def read_mamba(config: ExternalConfig) -> dict[str, Any]:
    """Return the attention of these layers."""
    return {
        "name": "mamba2",
        **{own: config.integer(*key) for own, key in SIZES.items()},
        **{own: config.flag(*key) for own, key in FLAGS.items()},
        "activation": read_activation(config, *ACTIVATION),
        "step_min": config.number(*STEP),
        "eps": config.number("layer_norm_epsilon", 1e-5),
    }


def write_mamba(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys that `read_mamba` reads, but for the epsilon; none if no layer has Mamba-2."""
    matching = of_type(layers, "linear_attention")
    if not matching:
        return {}
    mamba = matching[0].attention
    sizes = {key: getattr(mamba, own) for own, (key, _) in (SIZES | FLAGS).items()}
    return {**sizes, STEP[0]: mamba.step_min, ACTIVATION[0]: write_activation(mamba.activation)}
