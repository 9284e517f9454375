"""A tiny configuration for the conformance kit."""

from __future__ import annotations

from typing import Any

__all__ = ["TINY"]

_HEADS = {"num_key_value_heads": 1, "head_dim": 12, "partial_rotary_factor": 0.5, "q_lora_rank": 20}
_OUTPUT = {"o_groups": 2, "o_lora_rank": 10, "sliding_window": 5}
_INDEX = {"index_n_heads": 24, "index_head_dim": 10, "index_topk": 3}
_RATES = {"compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4}}
_EXPERTS = {
    "moe_intermediate_size": 24,
    "intermediate_size": 24,
    "n_shared_experts": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "hc_mult": 3,
}
_TYPES = {
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
    "mlp_layer_types": ["hash_moe", "moe", "moe"],
}
TINY: dict[str, Any] = {**_HEADS, **_OUTPUT, **_INDEX, **_RATES, **_EXPERTS, **_TYPES}
"""Keys in addition to the common sizes, with every type of layer."""
