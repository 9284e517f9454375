"""Blocks of Qwen 4 Exp: residual streams with gates, and layers with embeddings of n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_blocks", "write_blocks"]

_NGRAMS = {
    "max_ngram": ("ngram_size", 3),
    "heads": ("heads_per_ngram", 8),
    "table_rows": ("ngram_vocab_size_base", 20_000_000),
    "row_multiple": ("make_ngram_vocab_size_divisible_by", 128),
    "seed": ("seed", 1234),
    "conv_width": ("ple_conv_kernel_size", 4),
}
"""Keys and defaults by the fields of `engram`."""


def read_blocks(config: ExternalConfig, linear: Sequence[bool]) -> list[dict[str, Any]]:
    """Return the block of each layer.

    Args:
        config: the configuration.
        linear: whether each layer has linear attention.
    """
    streams = {"streams": config.integer("hc_count", 4), "rank": config.integer("hc_lowrank", 320)}
    if streams["streams"] < 2:
        config.refuse("hc_count", "transformers requires two or more residual streams")
    block = {"name": "gated-hyper-connections", **streams}
    fields = {own: config.integer(key, default) for own, (key, default) in _NGRAMS.items()}
    own_width = config.value("ple_embed_dim") is not None
    fields["d_embedding"] = config.integer("ple_embed_dim" if own_width else "hidden_size")
    layers = config.items("ple_layer_ids", [])
    boundary = config.value("eos_token_id") if layers else None
    boundary = boundary[0] if isinstance(boundary, list) and boundary else boundary
    if layers and (not isinstance(boundary, int) or isinstance(boundary, bool)):
        config.refuse("eos_token_id", "layers with n-grams (ple_layer_ids) need the id that n-grams do not reach over")
    if any(each not in range(1, len(linear) + 1) or not linear[each - 1] for each in layers):
        config.refuse("ple_layer_ids", "it should name layers with linear attention, counted from 1")
    engram = {"name": "engram", **fields, "boundary": boundary, "block": block}
    return [engram if index + 1 in layers else block for index in range(len(linear))]


def write_blocks(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the streams and of the n-grams."""
    engrams = [layer.block for layer in layers if layer.block.name == "engram"]
    block = next((each.block for each in engrams), layers[0].block)
    result = {"hc_count": block.streams, "hc_lowrank": block.rank, "split_ngram_parts": 1}
    result["ple_layer_ids"] = [index + 1 for index, layer in enumerate(layers) if layer.block.name == "engram"]
    for engram in engrams[:1]:
        result |= {key: getattr(engram, own) for own, (key, _) in _NGRAMS.items()}
        result |= {"ple_embed_dim": engram.d_embedding, "eos_token_id": engram.boundary}
    return result
