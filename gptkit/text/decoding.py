"""Incremental decoding of bytes: UTF-8 without a byte order mark, line ends as line feeds."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator

from gptkit.core.errors import DataError

__all__ = ["decode_utf8"]


def decode_utf8(pieces: Iterable[bytes], source: str, hint: str = "") -> Iterator[str]:
    """Decode pieces of one text.

    Args:
        pieces: the bytes, split at any offset.
        source: the name of the file or stream, for messages.
        hint: the remedy for an encoding other than UTF-8, with ``{encoding}`` for its likely name.

    Yields:
        The text of each piece, without a byte order mark, every line end as a line feed.

    Raises:
        DataError: the bytes are not UTF-8 text; names the line and the byte.
    """
    hint = hint or "Convert it (from {encoding}?) with iconv -f {encoding} -t UTF-8."
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    read = lines = 0
    for piece in pieces:
        if read == 0 and piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(f"{source}: this is UTF-16, not UTF-8", hint=hint.format(encoding="UTF-16"))
        if b"\0" in piece:
            raise DataError(
                f"{source}: not a text: byte {read + piece.index(0)} is zero",
                hint="Leave the file out, by `patterns` or a glob that does not match it.",
            )
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(piece)
        except UnicodeDecodeError as error:
            line = lines + error.object.count(b"\n", 0, error.start)
            raise _not_utf8(source, read - pending + error.start, line, hint) from None
        if read == 0:
            text = text.removeprefix("\ufeff")
        read += len(piece)
        lines += piece.count(b"\n")
        yield newlines.decode(text)
    try:
        yield newlines.decode(decoder.decode(b"", final=True), final=True)
    except UnicodeDecodeError as error:
        raise _not_utf8(source, read - len(error.object), lines, hint) from None


def _not_utf8(source: str, offset: int, lines: int, hint: str) -> DataError:
    return DataError(f"{source}:{lines + 1}: byte {offset} is not UTF-8", hint=hint.format(encoding="ISO-8859-1"))
