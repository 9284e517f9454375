"""Encodings other than UTF-8, for the remedies of messages."""

from __future__ import annotations

import codecs
import unicodedata

__all__ = ["conversion", "encoding_remedy", "wide_encoding"]

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # begins with the mark of UTF-16
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_WIDE = ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE")
_PROBED = 4096
"""Number of bytes that show the encoding."""

_WESTERN = 0.4
"""Texts in Latin script have a smaller share of bytes above 127."""

_ZEROS = 0.2
"""Share of zero bytes below which a text in Latin script has one byte for a character."""

_MOSTLY = 4
"""In a damaged UTF-8 text there are at least so many characters of several bytes for each invalid byte."""


def wide_encoding(head: bytes) -> str | None:
    """Return the encoding of a text with two or four bytes for a character, as iconv names it; None for another one.

    Without a byte order mark a text is recognized by its zero bytes, and its blanks and line ends.
    """
    marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    if marked is not None or 0 not in head[:_PROBED]:
        return marked
    head = head[:_PROBED]
    if head.count(0) < _ZEROS * len(head) and _decoded(head.replace(b"\0", b""), "UTF-8") is not None:
        return None  # UTF-8 with a few zero bytes
    texts = {name: text for name in _WIDE if (text := _decoded(head, name)) is not None}
    return max(texts, key=lambda name: _likeness(texts[name]), default=None)


def _decoded(head: bytes, encoding: str) -> str | None:
    """Return the text of the first bytes in an encoding; None if it has bytes that no text has."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return None
    plain = all(character in "\t\n\r\f" or unicodedata.category(character) not in ("Cc", "Cn", "Co") for character in text)
    return text if len(text) > 1 and plain and _likeness(text) else None


def _likeness(text: str) -> int:
    """Return the number of characters that every text has: letters of ASCII, blanks and line ends."""
    return sum(character.isascii() for character in text)


def conversion(encoding: str, command: str) -> str:
    """Return the remedy for a text in another encoding.

    Args:
        encoding: the name of the likely encoding.
        command: the command, with ``{options}`` for those of iconv.
    """
    return _remedy(f"Convert it (from {encoding}?)", command.format(options=f"-f {encoding}"))


def _remedy(what: str, command: str) -> str:
    return f"{what}, and read the new file in its place: {command}" if ">" in command else f"{what} with {command}."


def encoding_remedy(error: UnicodeDecodeError, command: str, before: str = "") -> str:
    """Return the remedy for bytes that are not UTF-8.

    Args:
        error: the error of the decoder of UTF-8.
        command: the command that converts the text, with ``{options}`` for those of iconv.
        before: decoded text before the bytes of the error.
    """
    data, start = error.object, error.start
    near = data[max(start - _PROBED, 0) : start + _PROBED]
    if _is_mostly_utf8(before[-_PROBED:] + near.decode(errors="replace")):
        # A conversion from another encoding would spell every other character wrongly.
        what = "The rest of it is UTF-8, and a conversion would damage it: correct these bytes, or remove such bytes"
        return _remedy(what, command.format(options="-c -f UTF-8"))
    high = sum(byte >= 0x80 for byte in near)
    if len(near) > 8 and high > _WESTERN * len(near):
        what = "Convert it from its encoding, such as SHIFT_JIS, GB18030, EUC-KR or CP1251 in place of ENCODING"
        return _remedy(what, command.format(options="-f ENCODING"))
    # ISO-8859-1 has control characters where Windows has quotation marks, dashes and the euro.
    return conversion("CP1252" if any(0x80 <= byte < 0xA0 for byte in data[start:]) else "ISO-8859-1", command)


def _is_mostly_utf8(text: str) -> bool:
    damaged = text.count("\ufffd")
    return sum(not character.isascii() for character in text) - damaged >= max(_MOSTLY * damaged, 1)
