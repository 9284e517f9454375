"""Suggestions for unknown names: the closest match and the known names."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence

__all__ = ["closest", "did_you_mean", "synonym"]

_SYNONYMS = (
    ("cuda", "gpu", "nvidia", "rocm"),
    ("mps", "metal", "apple"),
    ("bf16", "bfloat16"),
    ("fp16", "f16", "float16", "half"),
    ("fp32", "f32", "float32", "float", "single"),
    ("fp8", "f8", "float8"),
)
"""Names of the same device or type of numbers, in gptkit and elsewhere."""

_MANY = 30
"""More names than this are not listed one by one."""


def closest(name: str, known: Sequence[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that an unknown one is probably a misspelling of; none with a similarity below `cutoff`."""
    return next(iter(_nearest(name, known, 1, cutoff)), None)


def synonym(name: str, known: Sequence[str]) -> str | None:
    """Return the known name of the device or type of numbers that another name means: ``cuda`` for ``gpu``."""
    name = name.casefold().removeprefix("torch.")
    same = next((names for names in _SYNONYMS if name in names), ())
    return next((each for each in same if each in known), None)


def did_you_mean(name: str, known: Sequence[str], label: str = "registered") -> str:
    """Return the remedy for an unknown name: ``did you mean 'rms'? (registered: affine, gated, layer, none, rms)``."""
    close = closest(name, known)
    listed = f"{label}: {', '.join(known)}" if known else f"{label}: none"
    if len(known) > _MANY:
        near = _nearest(name, known, 6, 0.3) or known[:6]
        counted = f"{label} {len(known)}" if label.endswith(" are") else f"{len(known)} {label}"
        listed = f"{counted}, among them {', '.join(near)}"
    return f"did you mean {close!r}?{_look_alikes(name, close)} ({listed})" if close else listed


def _look_alikes(name: str, close: str) -> str:
    """Name the characters outside of ASCII of an unknown name: they may look like those of the name that is meant."""
    others = [character for character in dict.fromkeys(name) if ord(character) > 127 and character not in close]
    named = [f"U+{ord(each):04X} {unicodedata.name(each, 'without a name')}" for each in others[:3]]
    return f" It is written with {' and '.join(named)}." if named else ""


def _nearest(name: str, known: Sequence[str], n: int, cutoff: float) -> list[str]:
    # Upper and lower case are not compared: RMS is close to rms.
    by_case = {each.casefold(): each for each in reversed(known)}
    return [by_case[each] for each in difflib.get_close_matches(name.casefold(), list(by_case), n=n, cutoff=cutoff)]
