"""Glob patterns over the dotted names of a model's parts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from gptkit.core.suggestions import did_you_mean

__all__ = ["matches", "unmatched"]

_INDEX = re.compile(r"\.\d+(?=\.|$)")


def matches(name: str, pattern: str) -> bool:
    """Return whether a pattern matches a dotted name or that of a module that contains it; ``*`` matches dots too.

    ::

        matches("blocks.3.attention.qkv.weight", "blocks.[0-9].attention")   # True
    """
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def unmatched(names: Sequence[str], patterns: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the index of each pattern that matches no parameter, with a message that suggests the closest name."""
    for index, pattern in enumerate(patterns):
        if not any(matches(name, pattern) for name in names):
            yield index, f"{pattern!r} matches no parameter of the model; {did_you_mean(pattern, _known(names), 'names')}"


def _known(names: Sequence[str]) -> list[str]:
    """Return the names of parameters and modules, with one name for the same part of all blocks: ``blocks.*.attention``."""
    known: dict[str, None] = {}
    for name in names:
        parts = _INDEX.sub(".*", name).split(".")
        known |= {".".join(parts[: count + 1]): None for count in range(len(parts)) if parts[count] != "*"}
    return list(known)
