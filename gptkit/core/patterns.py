"""Glob patterns over the dotted names of a model's parts."""

from __future__ import annotations

from fnmatch import fnmatchcase

__all__ = ["matches"]


def matches(name: str, pattern: str) -> bool:
    """Return whether a pattern matches a dotted name or that of a module that contains it; ``*`` matches dots too.

    ::

        matches("blocks.3.attention.qkv.weight", "blocks.[0-9].attention")   # True
    """
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
