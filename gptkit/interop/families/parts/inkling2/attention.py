"""Attention of Inkling 2: its keys by types of layers, and what both types have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptkit.interop.families.parts.inkling.attention import ALIASES, FULL, SLIDING
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_attention", "read_conv", "read_position", "write_layers"]

HEADS: Mapping[str, Mapping[str, tuple[str, int]]] = {
    FULL: {
        "n_heads": ("num_attention_heads", 48),
        "n_kv_heads": ("num_key_value_heads", 8),
        "d_head": ("head_dim", 128),
        "relative_extent": ("rel_extent", 1024),
    },
    SLIDING: {
        "n_heads": ("swa_num_attention_heads", 48),
        "n_kv_heads": ("swa_num_key_value_heads", 8),
        "d_head": ("swa_head_dim", 128),
        "window": ("sliding_window_size", 1024),
    },
}
"""Keys and their defaults, by types of layers and fields."""


def read_conv(config: ExternalConfig) -> int:
    """Return the width of all convolutions."""
    return config.integer(config.alias("conv_kernel_size", "sconv_kernel_size"), 4)


def read_attention(config: ExternalConfig, kind: str, eps: float) -> dict[str, Any]:
    """Return the attention of the layers of a type; `eps` is that of the norm of values."""
    sizes = {
        field: config.integer(config.alias(key, *ALIASES.get(key, ())), usual) for field, (key, usual) in HEADS[kind].items()
    }
    clip = {"name": "l2-clip", "bound": config.number("qk_l2_clip_threshold", 22.627416997969522)}
    return {
        "name": "grouped-query",
        "relative_extent": sizes.get("window"),
        "qk_norm": clip,
        "k_norm": {**clip, "scale": False},
        "qk_norm_width": "each-head",
        "v_norm": {"name": "rms", "eps": eps, "scale": False},
        "output_gate": True,
        "token_sinks": True,
        "kv_conv": read_conv(config),
        "kv_conv_form": "dynamic" if kind == FULL else "scaled",
        "relative_width": config.integer("d_rel", 16),
        "relative_norm": {"name": "l2-clip", "bound": config.number("rel_l2_clip_threshold", 8.0)},
        **sizes,
    }


def read_position(config: ExternalConfig) -> dict[str, Any]:
    """Return the position of layers without a window."""
    strength = config.number("log_scaling_alpha", 0.1)
    interval = config.integer("log_scaling_n_floor", 128000)
    return {"name": "query-temperature", "growth": "smooth", "strength": strength, "interval": interval}


def write_layers(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the types of layers and of their attentions; those of a type that no layer has are defaults."""
    kinds = [FULL if layer.attention.window is None else SLIDING for layer in layers]
    result: dict[str, Any] = {"layer_types": kinds}
    for kind, sizes in HEADS.items():
        own = next((layer.attention for layer, each in zip(layers, kinds, strict=True) if each == kind), None)
        for field, (key, usual) in sizes.items():
            result[key] = usual if own is None else own.kv_heads if field == "n_kv_heads" else getattr(own, field)
    tuned = next((layer.position for layer in layers if layer.position.name == "query-temperature"), None)
    if tuned is not None:
        result |= {"log_scaling_n_floor": tuned.interval, "log_scaling_alpha": tuned.strength}
    first = layers[0].attention
    result |= {"d_rel": first.relative_width, "conv_kernel_size": first.kv_conv}
    return {**result, "qk_l2_clip_threshold": first.qk_norm.bound, "rel_l2_clip_threshold": first.relative_norm.bound}
