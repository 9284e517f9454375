"""Blocks and experts of Inkling 2, and the sizes of its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts import experts as moe
from gptkit.interop.families.parts.inkling2.attention import read_conv
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_block", "read_experts", "read_sizes", "write_blocks"]

EPS = 1e-6
"""Added to the mean square of sources, whatever `rms_norm_eps` is."""


def read_sizes(config: ExternalConfig) -> dict[str, Any]:
    """Return the fields of the model that differ from other families'; rows for ids without a logit do not count."""
    for key, value in {"hidden_act": "silu", "tie_word_embeddings": False}.items():
        config.only(key, value, why="transformers does not read it in this family")
    config.only("scoring_func", "sigmoid", why="the family reads experts with scores of this function")
    n_rows, n_ids = config.integer("vocab_size"), config.integer("unpadded_vocab_size", 200058)
    if n_ids < 1:
        config.refuse("unpadded_vocab_size", "it should be the number of ids that have a logit")
    context_length = config.integer(config.alias("max_position_embeddings", "model_max_length"), 1048576)
    return {"context_length": context_length, "vocab_size": min(n_rows, n_ids)}


def read_block(config: ExternalConfig) -> dict[str, Any]:
    """Return the block of layers with a window; in the others keys and values have inputs of their own."""
    return {
        "name": "attention-residuals",
        "group": config.integer("n_layers_per_attn_res_block", 6),
        "score_scale": config.integer("hidden_size") ** -0.5,
        "normalize_sources": True,
        "eps": EPS,
        "output_conv": read_conv(config),
        "output_conv_scaled": True,
    }


def read_experts(config: ExternalConfig) -> dict[str, Any]:
    """Return the feed-forward."""
    n_experts = config.integer(config.alias("n_routed_experts", "num_local_experts"), 384)
    scale = config.number(config.alias("route_scale", "routed_scaling_factor"), 8.0)
    router = {"name": "sigmoid", "k": config.integer("num_experts_per_tok", 8), "selection_bias": True, "scale": scale}
    expert = {
        "name": "gated",
        "d_hidden": config.integer(config.alias("moe_intermediate_size", "intermediate_size"), 2304),
        "activation": {"name": "capped-silu", "cap": config.number("mlp_gate_softcap", 4.0)},
        "up_softcap": config.number("mlp_up_softcap", 25.0),
    }
    return moe.sparse(n_experts, router, expert)


def write_blocks(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of blocks and experts."""
    experts = layers[0].feedforward
    return {
        "n_layers_per_attn_res_block": layers[0].block.group,
        "n_routed_experts": experts.n_experts,
        "num_experts_per_tok": experts.router.k,
        "route_scale": experts.router.scale,
        "moe_intermediate_size": experts.expert.d_hidden,
        "mlp_gate_softcap": experts.expert.activation.cap,
        "mlp_up_softcap": experts.expert.up_softcap,
    }
