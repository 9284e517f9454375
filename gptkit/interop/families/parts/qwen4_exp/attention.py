"""Layers of Qwen 4 Exp: linear attention, or attention to the blocks of keys that an indexer chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.layers import every, read_types
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_indexed", "read_types_of", "skip_indexer", "write_indexed"]

LINEAR, INDEXED, FORMER = "linear_attention", "indexed_attention", "full_attention"
_SIZES = {
    "index_heads": "indexer_n_heads",
    "d_index": "indexer_head_dim",
    "block_size": "indexer_compress_ratio",
}
"""Keys of the indexer by the fields of `pooled-sparse`."""


def read_types_of(config: ExternalConfig, n_layers: int) -> list[bool]:
    """Return whether each layer has linear attention: `layer_types`, or all but every fourth."""
    usual = [INDEXED if each else LINEAR for each in every(config.integer("full_attention_interval", 4), n_layers)]
    types = read_types(config, n_layers, usual, (LINEAR, INDEXED), former={FORMER: INDEXED})
    return [each == LINEAR for each in types]


def skip_indexer(config: ExternalConfig) -> None:
    """Read the keys of the indexer for a model without a layer that has one, where they have no effect."""
    for key in (*_SIZES.values(), "indexer_kv_heads", "indexer_budget"):
        config.value(key)


def read_indexed(config: ExternalConfig, attention: dict[str, Any]) -> dict[str, Any]:
    """Return the attention of layers with an indexer; `attention` is that of layers which attend to all keys."""
    config.only("indexer_kv_heads", 1, why="transformers has one key of the indexer for a token")
    fields = {own: config.integer(key) for own, key in _SIZES.items()}
    budget = config.integer("indexer_budget")
    if budget % fields["block_size"]:
        config.refuse("indexer_budget", "it should be a multiple of indexer_compress_ratio")
    fields["top_blocks"] = budget // fields["block_size"]
    return {**attention, **fields, "name": "pooled-sparse", "index_norm": attention["qk_norm"]}


def write_indexed(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the types of layers, and of the indexer, which all layers with one share."""
    types = [INDEXED if layer.attention.name == "pooled-sparse" else LINEAR for layer in layers]
    if INDEXED not in types:
        return {"layer_types": types}
    indexed = layers[types.index(INDEXED)].attention
    return {
        **{key: getattr(indexed, own) for own, key in _SIZES.items()},
        "indexer_kv_heads": 1,
        "indexer_budget": indexed.top_blocks * indexed.block_size,
        "layer_types": types,
    }
