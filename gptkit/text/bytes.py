"""The printable spelling that byte-level vocabularies write their tokens in: one character a byte.

Bytes that print and are no space stand for themselves as Latin-1; the others, in order, are the code points from 256 on.
"""

from __future__ import annotations

__all__ = ["BYTES", "spell", "unspell"]

_PRINTABLE = [value for value in range(256) if chr(value).isprintable() and value != 0x20]
_OTHER = [value for value in range(256) if value not in _PRINTABLE]
BYTES = {chr(value): value for value in _PRINTABLE} | {chr(256 + index): value for index, value in enumerate(_OTHER)}
"""The byte that each of the 256 characters stands for."""
_SPELLED = {value: character for character, value in BYTES.items()}


def spell(data: bytes) -> str:
    """Return the printable spelling of bytes."""
    return "".join(_SPELLED[value] for value in data)


def unspell(token: str) -> bytes:
    """The bytes of a token.

    Raises:
        KeyError: it has a character that spells no byte.
    """
    return bytes([BYTES[character] for character in token])
