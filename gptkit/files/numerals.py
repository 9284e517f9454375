"""Numbers in notations that YAML reads as text."""

from __future__ import annotations

import math
import re
import unicodedata

__all__ = ["numeral"]

_THOUSANDS = re.compile(r"(?<=\d)[_ '](?=\d)")
_UNITS = {"k": 10**3, "K": 10**3, "M": 10**6, "%": 0.01}


def numeral(text: str, *, whole: bool) -> str | None:
    """Return a number as YAML writes it; None if the text is not a number, or not a whole one.

    Underscores, spaces and apostrophes between digits (``1_000``), the units ``k``, ``M`` and ``%``, fractions (``1/10``),
    and digits of other scripts are read.
    """
    plain = _THOUSANDS.sub("", unicodedata.normalize("NFKC", text).replace("\N{FRACTION SLASH}", "/").strip())
    factor: float = _UNITS.get(plain[-1:], 1)
    plain = plain[:-1].rstrip() if plain[-1:] in _UNITS else plain
    above, slash, below = plain.partition("/")
    try:
        value = float(above) * factor / (float(below) if slash else 1)
    except (ValueError, ZeroDivisionError):
        return None
    if not math.isfinite(value) or (whole and not value.is_integer()):
        return None
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
