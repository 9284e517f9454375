"""The words of a text as a set, for keys of configurations."""

from __future__ import annotations

__all__ = ["keys"]


def keys(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())
