"""Token ids written in a sampler's spec."""

from __future__ import annotations

from collections.abc import Iterable

from gptkit.core.errors import GptkitError

__all__ = ["check_ids"]


def check_ids(sampler: str, ids: Iterable[int], vocab_size: int) -> None:
    """Refuse ids that the vocabulary does not have.

    Raises:
        GptkitError: with the first such id.
    """
    for token in ids:
        if not 0 <= token < vocab_size:
            raise GptkitError(
                f"sampler '{sampler}' names token {token}, but the vocabulary has {vocab_size} tokens",
                hint=f"Token ids are 0 to {vocab_size - 1}; the tokenizer's encode() gives those of a text.",
            )
