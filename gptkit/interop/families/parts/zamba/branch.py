"""Keys of the branch that Zamba and Zamba2 have in common."""

from __future__ import annotations

from typing import Any

from gptkit.interop.families.parts.activations import write_activation
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_attention", "write_branch"]


def read_attention(config: ExternalConfig, d_model: int, n_heads: int, n_kv_heads: int) -> dict[str, Any]:
    """Return the attention of the branch, whose heads have 2 · d_model features together unless a key has their size."""
    d_head = config.integer(config.alias("attention_head_dim", "head_dim"), 0) or 2 * d_model // max(1, n_heads)
    scale = (max(1, d_head) / 2) ** -0.5
    return {"name": "grouped-query", "n_heads": n_heads, "n_kv_heads": n_kv_heads, "d_head": d_head, "scale": scale}


def write_branch(block: Any) -> dict[str, Any]:
    """Return the keys of the attention and of the feed-forward."""
    return {
        "num_attention_heads": block.attention.n_heads,
        "num_key_value_heads": block.attention.kv_heads,
        "attention_head_dim": block.attention.head_shape().d_head,
        "hidden_act": write_activation(block.feedforward.activation),
        "intermediate_size": block.feedforward.d_hidden,
    }
