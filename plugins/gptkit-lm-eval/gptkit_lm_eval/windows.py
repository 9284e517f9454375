"""Texts that are longer than a context, cut into what one call of the model can read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["Window", "rolling", "windows"]

Window = tuple[list[int], list[int]]
"""What is read first, and what is scored: together at most one token more than the context holds."""


def windows(context: Sequence[int], continuation: Sequence[int], limit: int) -> Iterator[Window]:
    """The continuation, scored once, each part with as much before it as fits.

    Args:
        context: at least one token.
        limit: the context length.
    """
    before, left = list(context), list(continuation)
    while left:
        part, left = left[:limit], left[limit:]
        room = limit + 1 - len(part)
        yield before[-room:], part
        before = before + part


def rolling(tokens: Sequence[int], prefix: int, limit: int) -> Iterator[Window]:
    """A whole text, every token scored once; the last part is read with a full context before it."""
    return windows([prefix], tokens, limit)
