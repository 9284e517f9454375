"""Sizes of the latent attention of dots3 Note, which layers with windows have for themselves."""

from __future__ import annotations

from typing import Any

from gptkit.interop.families.parts.keys import keys
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_sizes", "write_sizes"]

SIZES = {
    "n_heads": ("num_attention_heads", 128, 64),
    "q_rank": ("q_lora_rank", 1024, 1024),
    "kv_rank": ("kv_lora_rank", 512, 1024),
    "d_nope": ("qk_nope_head_dim", 128, 192),
    "d_rotary": ("qk_rope_head_dim", 64, 64),
    "d_value": ("v_head_dim", 128, 128),
}
"""Keys of the sizes of attention, their defaults, and those of layers with windows."""


def read_sizes(config: ExternalConfig, index: int) -> dict[str, Any]:
    """Return the fields in which the attention of a layer with a window differs from the others."""
    window = {"window": config.integer("sliding_window", 512)}
    if "per_layer_config" not in config:
        sizes = {own: config.integer(f"swa_{key}", default) for own, (key, _, default) in SIZES.items()}
        config.value("swa_num_key_value_heads")  # all heads have the same latent
        width = config.integer("swa_head_dim", 256)
        sizes["d_rotary"] = config.integer("swa_qk_rope_head_dim", width - sizes["d_nope"])
        if width != sizes["d_nope"] + sizes["d_rotary"]:
            config.refuse("swa_head_dim", "it should be swa_qk_nope_head_dim + swa_qk_rope_head_dim")
        return window | sizes
    section = config.section("per_layer_config").section(str(index), keys("head_dim num_key_value_heads"))
    sizes = {own: section.integer(key, config.integer(key, default)) for own, (key, default, _) in SIZES.items()}
    return window | sizes


def write_sizes(attention: Any) -> dict[str, int]:
    """Return the entry of `per_layer_config` for the attention of a layer with a window."""
    result = {key: getattr(attention, own) for own, (key, *_) in SIZES.items()}
    width = attention.d_nope + attention.d_rotary
    return {**result, "num_key_value_heads": attention.n_heads, "head_dim": width}
