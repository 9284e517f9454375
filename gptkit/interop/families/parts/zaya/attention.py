"""Keys of ZAYA1's attention."""

from __future__ import annotations

from typing import Any

from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_attention", "write_attention"]

SIZES = {
    "n_heads": ("num_attention_heads", 8),
    "n_kv_heads": ("num_key_value_heads", 2),
    "d_head": ("head_dim", 128),
    "feature_width": ("cca_time0", 2),
    "head_width": ("cca_time1", 2),
}
"""Keys and their defaults, by fields."""


def read_attention(config: ExternalConfig) -> dict[str, Any]:
    """Return the attention of all layers; windows are those of layers."""
    bias = config.flag("attention_bias", False)
    sizes = {field: config.integer(*key) for field, key in SIZES.items()}
    return {"name": "convolutional", **sizes, "qkv_bias": bias, "output_bias": bias}


def write_attention(attention: Any) -> dict[str, Any]:
    """Return the keys of the attention."""
    return {**{key: getattr(attention, field) for field, (key, _) in SIZES.items()}, "attention_bias": attention.qkv_bias}
