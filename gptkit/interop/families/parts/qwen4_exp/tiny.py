"""A tiny configuration for the conformance kit."""

from __future__ import annotations

from typing import Any

__all__ = ["TINY"]

_DELTA = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2}
_INDEX = {"indexer_n_heads": 16, "indexer_kv_heads": 1, "indexer_head_dim": 14, "indexer_budget": 8}
_NGRAMS = {"ple_layer_ids": [1, 3], "ple_embed_dim": 24, "ngram_vocab_size_base": 29, "heads_per_ngram": 2}
_MORE = {"head_dim": 12, "indexer_compress_ratio": 4, "hc_count": 2, "hc_lowrank": 6, "eos_token_id": 7}
_MORE |= {"make_ngram_vocab_size_divisible_by": 4, "split_ngram_parts": 2}
TINY: dict[str, Any] = {**_DELTA, **_INDEX, **_NGRAMS, **_MORE}
"""Keys in addition to the common sizes."""
