"""The GGUF architecture of GPT-2."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gptkit.interop.formats.gguf.architecture import Architecture
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["GPT2"]

_NAMES = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
    "transformer.h.*.ln_1": "blk.*.attn_norm",
    "transformer.h.*.ln_2": "blk.*.ffn_norm",
    "transformer.h.*.attn.c_attn": "blk.*.attn_qkv",
    "transformer.h.*.attn.c_proj": "blk.*.attn_output",
    "transformer.h.*.mlp.c_fc": "blk.*.ffn_up",
    "transformer.h.*.mlp.c_proj": "blk.*.ffn_down",
}


def _read(keys: ExternalConfig, tensors: Collection[str]) -> dict[str, Any]:
    return {
        "n_positions": keys.integer("context_length"),
        "n_embd": keys.integer("embedding_length"),
        "n_layer": keys.layers("block_count"),
        "n_head": keys.integer("attention.head_count"),
        "n_inner": keys.integer("feed_forward_length"),
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
        "tie_word_embeddings": "output.weight" not in tensors,
    }


def _write(config: Mapping[str, Any]) -> dict[str, Typed]:
    return {
        "context_length": Typed("u32", config["n_positions"]),
        "embedding_length": Typed("u32", config["n_embd"]),
        "block_count": Typed("u32", config["n_layer"]),
        "attention.head_count": Typed("u32", config["n_head"]),
        "feed_forward_length": Typed("u32", config["n_inner"]),
        "attention.layer_norm_epsilon": Typed("f32", config["layer_norm_epsilon"]),
    }


GPT2 = Architecture("gpt2", "gpt2", _NAMES, _read, _write, transposed=("attn_qkv", "attn_output", "ffn_up", "ffn_down"))
"""GPT-2's keys and tensors; its matrices are stored transposed."""
