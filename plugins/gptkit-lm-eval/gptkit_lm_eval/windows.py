"""Division of long texts into windows that fit one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["Window", "rolling", "windows"]

Window = tuple[list[int], list[int]]
"""Tokens of the context, and tokens to score: together at most one token more than the context length."""


def windows(context: Sequence[int], continuation: Sequence[int], limit: int) -> Iterator[Window]:
    """Yield windows that score every token of the continuation once, each with as many preceding tokens as fit.

    Args:
        context: the tokens before the continuation, at least one.
        continuation: the tokens to score.
        limit: the context length.
    """
    before, left = list(context), list(continuation)
    while left:
        part, left = left[:limit], left[limit:]
        room = limit + 1 - len(part)
        yield before[-room:], part
        before = before + part


def rolling(tokens: Sequence[int], prefix: int, limit: int) -> Iterator[Window]:
    """Yield windows that score every token of a text once; the last one has a full context."""
    return windows([prefix], tokens, limit)
