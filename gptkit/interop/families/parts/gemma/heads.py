"""Heads of layers with full attention, and layers that share keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.keys import keys
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["GLOBAL", "read_first_sharing", "read_full_heads", "write_heads"]

GLOBAL = keys("global_head_dim attention_k_eq_v num_global_key_value_heads")
"""Keys of the heads in layers with full attention, which only Gemma 4 has."""


def read_first_sharing(config: ExternalConfig, slides: Sequence[bool], default: int = 0) -> int:
    """Return the first of the last layers that attend to the keys and values of the last layer of their type before them."""
    n_shared = config.integer("num_kv_shared_layers", default)
    first = len(slides) - n_shared
    if n_shared and not (first > 0 and set(slides[:first]) == set(slides)):
        config.refuse("num_kv_shared_layers", "layers of each type should precede those that share keys and values")
    return first


def read_full_heads(config: ExternalConfig, index: int) -> dict[str, Any]:
    """Return the heads of the layer `index`, which has full attention, from either form that transformers reads."""
    tied = config.flag("attention_k_eq_v", False)
    result: dict[str, Any] = {"tie_kv": True} if tied else {}
    wide, n_global = config.integer("global_head_dim", 512), config.value("num_global_key_value_heads")
    own = config.section("per_layer_config")
    if "per_layer_config" not in config:
        n_kv_heads = {"n_kv_heads": config.integer("num_global_key_value_heads")} if tied and n_global is not None else {}
        return {**result, "d_head": wide, **n_kv_heads}
    layer = own.section(next((key for key in own.data if key.isdigit() and int(key) == index), str(index)))
    n_kv_heads = {"n_kv_heads": layer.integer("num_key_value_heads")} if "num_key_value_heads" in layer else {}
    return {**result, "d_head": layer.integer("head_dim", config.integer("head_dim", 256)), **n_kv_heads}


def write_heads(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the heads of both types of layers, and of layers that share keys and values."""
    local = next((layer.attention for layer in layers if layer.attention.window), layers[0].attention)
    full = next((layer.attention for layer in layers if not layer.attention.window), local)
    return {
        "head_dim": local.d_head,
        "num_key_value_heads": local.kv_heads,
        "global_head_dim": full.d_head,
        "attention_k_eq_v": full.tie_kv,
        "num_global_key_value_heads": full.kv_heads if full.tie_kv else None,
        "num_kv_shared_layers": sum(layer.attention.reuse_kv for layer in layers),
    }
