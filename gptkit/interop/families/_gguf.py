"""GGUF architectures of families with Llama's keys and tensor names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["DECODER", "read_decoder", "write_decoder"]

DECODER = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.*.input_layernorm": "blk.*.attn_norm",
    "model.layers.*.post_attention_layernorm": "blk.*.ffn_norm",
    "model.layers.*.self_attn.q_proj": "blk.*.attn_q",
    "model.layers.*.self_attn.k_proj": "blk.*.attn_k",
    "model.layers.*.self_attn.v_proj": "blk.*.attn_v",
    "model.layers.*.self_attn.o_proj": "blk.*.attn_output",
    "model.layers.*.self_attn.q_norm": "blk.*.attn_q_norm",
    "model.layers.*.self_attn.k_norm": "blk.*.attn_k_norm",
    "model.layers.*.mlp.gate_proj": "blk.*.ffn_gate",
    "model.layers.*.mlp.up_proj": "blk.*.ffn_up",
    "model.layers.*.mlp.down_proj": "blk.*.ffn_down",
}
"""Tensor names and those in GGUF files."""


def read_decoder(keys: ExternalConfig, tensors: Collection[str], head: int | None = None) -> dict[str, Any]:
    """Return the configuration for the keys of a GGUF file; `head` is the head size where the file has none."""
    width, n_heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    d_head = keys.integer("attention.key_length", head or width // max(1, n_heads))
    if keys.integer("attention.value_length", d_head) != d_head:
        keys.refuse("attention.value_length", "keys and values must have the same size")
    if keys.integer("rope.dimension_count", d_head) != d_head:
        keys.refuse("rope.dimension_count", f"positions must rotate whole heads of {d_head} features")
    theta = keys.number("rope.freq_base", 10000.0)
    length = keys.integer("context_length")
    config: dict[str, Any] = {
        "max_position_embeddings": length,
        "hidden_size": width,
        "num_hidden_layers": keys.layers("block_count"),
        "intermediate_size": keys.integer("feed_forward_length"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": keys.integer("attention.head_count_kv", n_heads),
        "head_dim": d_head,
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "hidden_act": "silu",
        "rope_theta": theta,
        "tie_word_embeddings": "output.weight" not in tensors,
    }
    factor = keys.maybe("rope.scaling.factor") or keys.maybe("rope.scale_linear")
    kind = keys.text("rope.scaling.type", "none" if factor is None else "linear")
    if kind not in ("none", "linear", "yarn"):
        keys.refuse("rope.scaling.type", "gptkit does not read such a scaling from GGUF")
    trained = keys.nullable("rope.scaling.original_context_length", length)
    keys.value("rope.scaling.finetuned")
    if factor is not None and kind != "none":
        config["rope_scaling"] = {"rope_type": kind, "factor": factor}
        if kind == "yarn":
            config["rope_scaling"] |= {"original_max_position_embeddings": trained}
    return config


def write_decoder(config: Mapping[str, Any]) -> dict[str, Typed]:
    """Return the keys of a GGUF file for a configuration."""
    keys = {
        "context_length": Typed("u32", config["max_position_embeddings"]),
        "embedding_length": Typed("u32", config["hidden_size"]),
        "block_count": Typed("u32", config["num_hidden_layers"]),
        "feed_forward_length": Typed("u32", config["intermediate_size"]),
        "attention.head_count": Typed("u32", config["num_attention_heads"]),
        "attention.head_count_kv": Typed("u32", config["num_key_value_heads"]),
        "attention.key_length": Typed("u32", config["head_dim"]),
        "attention.value_length": Typed("u32", config["head_dim"]),
        "attention.layer_norm_rms_epsilon": Typed("f32", config["rms_norm_eps"]),
        "rope.dimension_count": Typed("u32", config["head_dim"]),
        "rope.freq_base": Typed("f32", config["rope_theta"]),
    }
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") in ("linear", "yarn"):
        keys["rope.scaling.type"] = Typed("string", scaling["rope_type"])
        keys["rope.scaling.factor"] = Typed("f32", scaling["factor"])
    if scaling.get("rope_type") == "yarn":
        keys["rope.scaling.original_context_length"] = Typed("u32", scaling["original_max_position_embeddings"])
    return keys
