"""Environment variables of gptkit: their names, and warnings of misspelled ones."""

from __future__ import annotations

import os
from collections.abc import Mapping

from gptkit.core.suggestions import closest

__all__ = ["ignore_unusable_width", "is_on", "misspelled"]

VARIABLES = ("GPTKIT_ALLOCATOR", "GPTKIT_API_KEY", "GPTKIT_CACHE", "GPTKIT_DEBUG", "GPTKIT_DISABLE")
"""The variables that gptkit reads. Plugins may have others."""

_SIMILAR = 0.85
_NARROWEST = 20
_OFF = ("", "0", "false", "no", "off")


def is_on(name: str) -> bool:
    """Return whether a variable that is a switch is on: it is set, and not to 0, false, no or off."""
    return os.environ.get(name, "").strip().lower() not in _OFF


def ignore_unusable_width() -> None:
    """Remove the width of the terminal (COLUMNS) if it is below that of a word: tables of width 0 print nothing."""
    width = os.environ.get("COLUMNS", "")
    if width.isdecimal() and int(width) < _NARROWEST:
        del os.environ["COLUMNS"]


def misspelled(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return variables that nothing reads, each with the name that is probably meant."""
    others = [name for name in environment if name.upper().startswith("GPTKIT") and name not in VARIABLES]
    meant = {name: closest(name, VARIABLES, _SIMILAR) for name in others}
    return {name: known for name, known in meant.items() if known is not None}
