"""Sizes of models with one attention in all layers, by the keys of GPT-2 or of most later families."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

__all__ = ["GPT2", "USUAL", "write_sizes"]

_FIELDS = ("context_length", "d_model", "n_layers", "vocab_size", "attention.n_heads", "head.tied")
GPT2 = ("n_positions", "n_embd", "n_layer", "vocab_size", "n_head", "tie_word_embeddings")
USUAL = (
    "max_position_embeddings",
    "hidden_size",
    "num_hidden_layers",
    "vocab_size",
    "num_attention_heads",
    "tie_word_embeddings",
)


def write_sizes(model: Any, keys: Sequence[str]) -> dict[str, Any]:
    """Return the sizes of a model; `keys` is `GPT2` or `USUAL`."""
    return {key: attrgetter(field)(model) for key, field in zip(keys, _FIELDS, strict=True)}
