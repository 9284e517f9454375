"""Validation of token ids in a sampler's spec."""

from __future__ import annotations

from collections.abc import Iterable

from gptkit.core.errors import GptkitError

__all__ = ["check_ids"]


def check_ids(sampler: str, ids: Iterable[int], vocab_size: int) -> None:
    """Refuse ids that are not in the vocabulary.

    Raises:
        GptkitError: an id is outside the vocabulary; names the first.
    """
    for token in ids:
        if not 0 <= token < vocab_size:
            raise GptkitError(
                f"sampler '{sampler}' has token {token}, but the vocabulary has {vocab_size} tokens",
                hint=f"Use ids from 0 to {vocab_size - 1}; the tokenizer's encode() returns those of a text.",
            )
