"""Attention of Inkling: its keys by types of layers, all tokens or a window, and the temperature of queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptkit.kinds.external_config import ExternalConfig

__all__ = ["FULL", "HEADS", "SLIDING", "read_attention", "read_conv", "read_temperature"]

FULL, SLIDING = "hybrid", "hybrid_sliding"
HEADS: Mapping[str, Mapping[str, tuple[str, int]]] = {
    FULL: {
        "n_heads": ("num_attention_heads", 64),
        "n_kv_heads": ("num_key_value_heads", 8),
        "d_head": ("head_dim", 128),
        "relative_extent": ("rel_extent", 1024),
    },
    SLIDING: {
        "n_heads": ("swa_num_attention_heads", 64),
        "n_kv_heads": ("swa_num_key_value_heads", 16),
        "d_head": ("swa_head_dim", 128),
        "window": ("sliding_window_size", 512),
    },
}
"""Keys and their defaults, by types of layers and fields."""
ALIASES = {"sliding_window_size": ("sliding_window",)}
"""Other names of keys."""


def read_conv(config: ExternalConfig) -> int:
    """Return the width of all convolutions."""
    return config.integer(config.alias("conv_kernel_size", "sconv_kernel_size"), 4)


def read_attention(config: ExternalConfig, kind: str, norm: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attention of the layers of a type; queries and keys are normalized, hence the scale."""
    sizes = {
        field: config.integer(config.alias(key, *ALIASES.get(key, ())), usual) for field, (key, usual) in HEADS[kind].items()
    }
    return {
        "name": "grouped-query",
        "relative_extent": sizes.get("window"),
        "scale": 1 / max(1, sizes["d_head"]),
        "qk_norm": dict(norm),
        "kv_conv": read_conv(config),
        "relative_width": config.integer("d_rel", 16),
        **sizes,
    }


def read_temperature(config: ExternalConfig) -> dict[str, Any] | str:
    """Return the position of layers without a window."""
    strength = config.number("log_scaling_alpha", 0.1)
    floor = config.nullable("log_scaling_n_floor")
    if floor is None:
        return "none"
    return {"name": "query-temperature", "growth": "smooth", "strength": strength, "interval": floor}
