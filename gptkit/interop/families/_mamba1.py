"""Mamba layers with a decay of each feature: what families have in common in how they name them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gptkit.interop.families._common import keys, read_activation
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["INERT", "TENSORS", "read_period", "read_rank", "read_selective", "selective_rules", "write_period"]

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


def read_rank(config: ExternalConfig, key: str) -> int:
    """Return the number of features from which the step sizes are computed; `auto` is a sixteenth of the width."""
    if config.value(key, "auto") == "auto":
        return math.ceil(config.integer("hidden_size") / 16)
    return config.integer(key)


def read_selective(config: ExternalConfig, names: dict[str, str], d_inner: int, norm: Any) -> dict[str, Any]:
    """Return the attention `mamba1`.

    Args:
        config: the configuration.
        names: keys of `d_state`, `step_rank`, `conv_width`, `conv_bias`, `bias` and `activation`.
        d_inner: features of the values.
        norm: the norm of what the selection returns.
    """
    return {
        "name": "mamba1",
        "d_inner": d_inner,
        "d_state": config.integer(names["d_state"], 16),
        "step_rank": read_rank(config, names["step_rank"]),
        "conv_width": config.integer(names["conv_width"], 4),
        "conv_bias": config.flag(names["conv_bias"], True),
        "bias": config.flag(names["bias"], False),
        "activation": read_activation(config, names["activation"], "silu"),
        "norm": norm,
    }


def read_period(config: ExternalConfig, kind: str, period: int, offset: int, n_layers: int) -> list[bool]:
    """Return whether each layer is one of every `period`, from `offset` on.

    Args:
        config: the configuration; it has the keys ``<kind>_layer_period`` and ``<kind>_layer_offset``.
        kind: `attn` or `expert`.
        period, offset: their defaults.
        n_layers: number of layers.
    """
    period, key = config.integer(f"{kind}_layer_period", period), f"{kind}_layer_offset"
    offset = config.integer(key, offset)
    if not 0 <= offset < period:
        config.refuse(key, f"it should be from 0 to {kind}_layer_period - 1, {period - 1}")
    return [index % period == offset for index in range(n_layers)]


def write_period(kind: str, chosen: Sequence[bool]) -> dict[str, int]:
    """Return the keys that `read_period` reads.

    Raises:
        ValueError: the layers do not follow from a period and an offset.
    """
    for period in range(1, len(chosen) + 2):
        for offset in range(period):
            if [index % period == offset for index in range(len(chosen))] == list(chosen):
                return {f"{kind}_layer_period": period, f"{kind}_layer_offset": offset}
    raise ValueError(f"layers with {kind} do not occur at equal distances")


def selective_rules(model: Any, external: str) -> list[Rule]:
    """Where Mamba layers are; they come before the rules of attention layers."""
    indices = [index for index, layer in enumerate(model.layer_specs()) if layer.attention.name == "mamba1"]
    return [
        Rule(f"blocks.{index}.attention.{native}", f"{external.format(index)}.{name}")
        for index in indices
        for native, name in TENSORS.items()
    ]
