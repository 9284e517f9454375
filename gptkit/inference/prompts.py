"""Conversion of prompts to token ids."""

from __future__ import annotations

from collections.abc import Sequence

from gptkit.core.errors import GptkitError
from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["as_ids", "shared_length"]


def as_ids(prompts: str | Sequence[str | Sequence[int]], tokenizer: Tokenizer, vocab_size: int) -> list[list[int]]:
    """Return the token ids of each prompt, at least one.

    An empty prompt becomes the tokenizer's start token, or its end token without a start token.

    Raises:
        GptkitError: the prompt is empty and the tokenizer has neither token, or an id is outside the model's vocabulary.
    """
    texts: Sequence[str | Sequence[int]] = [prompts] if isinstance(prompts, str) else prompts
    result = []
    for index, prompt in enumerate(texts):
        ids = tokenizer.encode(prompt) if isinstance(prompt, str) else [int(token) for token in prompt]
        if not ids:
            first = tokenizer.start_id if tokenizer.start_id is not None else tokenizer.end_id
            if first is None:
                raise GptkitError(
                    f"prompt {index} is empty, and the tokenizer has neither a start nor an end token",
                    hint="Pass at least one character of text.",
                )
            ids = [first]
        wrong = [token for token in ids if not 0 <= token < vocab_size]
        if wrong:
            raise GptkitError(
                f"prompt {index} contains token {wrong[0]}, but the model's vocabulary has {vocab_size} tokens",
                hint="Use the model's tokenizer.",
            )
        result.append(ids)
    return result


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the number of tokens that two texts have in common from the first on."""
    return next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
