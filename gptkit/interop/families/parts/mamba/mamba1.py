"""Mamba layers with a decay of each feature: what families have in common in how they name them."""

from __future__ import annotations

import math
from typing import Any

from gptkit.interop.families.parts.activations import read_activation
from gptkit.interop.families.parts.hybrids import numbered_rules
from gptkit.interop.families.parts.keys import keys
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["INERT", "read_selective", "selective_rules"]

INERT = keys("use_associative_scan use_mambapy use_falcon_mambapy use_mamba_kernels num_logits_to_keep")
"""Keys of how the layers are computed."""

TENSORS = {
    "input": "in_proj",
    "conv": "conv1d",
    "select": "x_proj",
    "step": "dt_proj",
    "step_bias": "dt_proj.bias",
    "decay_log": "A_log",
    "skip": "D",
    "output": "out_proj",
    "step_norm": "dt_layernorm",
    "key_norm": "b_layernorm",
    "query_norm": "c_layernorm",
}
"""External names of a layer's tensors, by the native ones."""


def read_selective(config: ExternalConfig, names: dict[str, str], d_model: int, d_inner: int, norm: Any) -> dict[str, Any]:
    """Return the attention `mamba1`.

    Args:
        config: the configuration.
        names: keys of `d_state`, `step_rank`, `conv_width`, `conv_bias`, `bias` and `activation`.
        d_model: width of the model.
        d_inner: features of the values.
        norm: the norm of what the selection returns.
    """
    return {
        "name": "mamba1",
        "d_inner": d_inner,
        "d_state": config.integer(names["d_state"], 16),
        "step_rank": _rank(config, names["step_rank"], d_model),
        "conv_width": config.integer(names["conv_width"], 4),
        "conv_bias": config.flag(names["conv_bias"], True),
        "bias": config.flag(names["bias"], False),
        "activation": read_activation(config, names["activation"], "silu"),
        "norm": norm,
    }


def selective_rules(model: Any, external: str) -> list[Rule]:
    """Return the rules of Mamba layers; they come before those of attention layers."""
    return numbered_rules(model, "mamba1", external, TENSORS)


def _rank(config: ExternalConfig, key: str, d_model: int) -> int:
    """Return the number of features from which the step sizes are computed; `auto` is a sixteenth of the width."""
    if config.value(key, "auto") == "auto":
        return math.ceil(d_model / 16)
    return config.integer(key)
