"""Printable encoding of bytes in byte-level vocabularies: one character per byte.

Printable bytes other than the space are encoded as Latin-1; the others, in order, as the code points from 256.
"""

from __future__ import annotations

__all__ = ["BYTES", "spell", "unspell"]

_PRINTABLE = [value for value in range(256) if chr(value).isprintable() and value != 0x20]
_OTHER = [value for value in range(256) if value not in _PRINTABLE]
BYTES = {chr(value): value for value in _PRINTABLE} | {chr(256 + index): value for index, value in enumerate(_OTHER)}
"""The byte of each of the 256 characters."""
_SPELLED = {value: character for character, value in BYTES.items()}


def spell(data: bytes) -> str:
    """Return the printable encoding of bytes."""
    return "".join(_SPELLED[value] for value in data)


def unspell(token: str) -> bytes:
    """Return the bytes of a printable token.

    Raises:
        KeyError: a character does not encode a byte.
    """
    return bytes([BYTES[character] for character in token])
