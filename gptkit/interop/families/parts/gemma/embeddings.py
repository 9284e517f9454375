"""Embeddings for each layer."""

from __future__ import annotations

from typing import Any

from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["N_IDS", "PER_LAYER", "embedding_rules", "read_layer_embedding", "write_layer_embedding"]

PER_LAYER, N_IDS = "hidden_size_per_layer_input", "vocab_size_per_layer_input"


def read_layer_embedding(config: ExternalConfig, activation: str, norm: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the embedding for each layer."""
    n_ids, vocab_size = config.integer(N_IDS, 262144), config.integer("vocab_size")
    width = config.integer(PER_LAYER, 256)
    if width and n_ids > vocab_size:
        config.refuse(N_IDS, f"there are {vocab_size:,} token ids")
    fields = {"activation": activation, "norm": norm}
    return {"d_embedding": width, "n_ids": n_ids if n_ids < vocab_size else None, "projection": True, **fields}


def write_layer_embedding(model: Any) -> dict[str, Any]:
    """Return the keys of the embedding for each layer."""
    block = model.layer_specs()[0].block
    width, n_ids = (getattr(block, name, None) for name in ("d_embedding", "n_ids"))
    return {PER_LAYER: width or 0, N_IDS: n_ids or model.vocab_size}


def embedding_rules() -> list[Rule]:
    """Return the rules of the embedding for each layer."""
    layer, inputs = "model.layers.*", "shared.per-layer-embedding"
    return [
        Rule("blocks.*.embedding.gate", f"{layer}.per_layer_input_gate"),
        Rule("blocks.*.embedding.output", f"{layer}.per_layer_projection"),
        Rule("blocks.*.embedding.norm", f"{layer}.post_per_layer_input_norm"),
        Rule(f"{inputs}.table", "model.embed_tokens_per_layer"),
        Rule(f"{inputs}.projection", "model.per_layer_model_projection"),
        Rule(f"{inputs}.norm", "model.per_layer_projection_norm"),
    ]
