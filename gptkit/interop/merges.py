"""Byte-level vocabularies as pairs of spelled byte pieces that are merged, the form that other libraries use."""

from __future__ import annotations

from collections.abc import Mapping

from gptkit.text.bytes import BYTES

__all__ = ["merges", "spell"]

_SPELLED = {value: character for character, value in BYTES.items()}


def spell(data: bytes) -> str:
    """Bytes with one printable character each."""
    return "".join(_SPELLED[value] for value in data)


def merges(ranks: Mapping[bytes, int]) -> list[tuple[str, str]]:
    """The pairs that make each token, in the order in which they are merged."""
    found = []
    for token in sorted(ranks, key=ranks.__getitem__):
        # Any two tokens that make this one are merged when its turn comes.
        pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [(ranks[a], ranks[b], a, b) for a, b in pairs if a in ranks and b in ranks]
        found += [(spell(left), spell(right)) for *_, left, right in sorted(known)]
    return found
