"""Incremental decoding of bytes: UTF-8 without a byte order mark, line ends as line feeds."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator

from gptkit.core.errors import DataError

__all__ = ["decode_utf8"]

_UTF16 = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
_BINARY = {
    b"%PDF-": "a PDF document",
    b"PK\3\4": "a ZIP archive, as .docx, .xlsx and .epub files are",
    b"\xd0\xcf\x11\xe0": "a legacy Office document",
    b"\x1f\x8b": "compressed with gzip; name it .gz",
    b"BZh91AY&SY": "compressed with bzip2; name it .bz2",
    b"\xfd7zXZ": "compressed with xz; name it .xz",
    b"(\xb5/\xfd": "compressed with zstd; name it .zst",
    b"PAR1": "a Parquet table",
    b"SQLite format 3\0": "an SQLite database",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"\x7fELF": "an executable",
    b"\x93NUMPY": "an array of NumPy",
    b"ARROW1": "an Arrow table",
    b"\x80\x02": "a pickle",
    b"\x80\x04\x95": "a pickle",
    b"\x80\x05\x95": "a pickle",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"GGUF\3\0": "a model in a GGUF file",
}
"""Descriptions of binary files by their first bytes."""
_EXTRACT = "Extract its text into a .txt file, or exclude the file by `patterns` or a glob that does not match it."
_CONTROLS = bytes(set(range(1, 32)) - set(b"\b\t\n\v\f\r\x1b"))
_FEW = 100
"""A text has at most one other control character in so many bytes."""
_TAR = slice(257, 262)
_PROBED = 64


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
        if read == 0:
            _require_text(piece, source, hint)
        if b"\0" in piece:
            first = piece.index(0)
            line = lines + piece.count(b"\n", 0, first) + 1
            if _is_binary(piece):
                raise DataError(f"{source}: not a text, but binary data: byte {read + first} is zero", hint=_EXTRACT)
            raise DataError(
                f"{source}:{line}: not a text: byte {read + first} is zero",
                hint="Remove zero bytes with tr -d '\\000', or exclude the file by `patterns` or a glob.",
            )
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(piece)
        except UnicodeDecodeError as error:
            line = lines + error.object.count(b"\n", 0, error.start)
            raise _not_utf8(source, read - pending + error.start, line, hint, error.object[error.start :]) from None
        if read == 0:
            text = text.removeprefix("\ufeff")
        read += len(piece)
        lines += piece.count(b"\n")
        yield newlines.decode(text)
    try:
        yield newlines.decode(decoder.decode(b"", final=True), final=True)
    except UnicodeDecodeError as error:
        raise _not_utf8(source, read - len(error.object), lines, hint, error.object[error.start :]) from None


def _is_binary(piece: bytes) -> bool:
    """Return whether bytes are not a text, even without their zero bytes."""
    rest = piece.replace(b"\0", b"")
    if len(rest.translate(None, _CONTROLS)) * _FEW < len(rest) * (_FEW - 1):
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(rest)
    except UnicodeDecodeError:
        return True
    return False


def _require_text(head: bytes, source: str, hint: str) -> None:
    """Raise if a file begins like a known binary format or like UTF-16."""
    what = next((what for magic, what in _BINARY.items() if head.startswith(magic)), None)
    if head[_TAR] == b"ustar":
        what = "a tar archive"
    if what is not None:
        raise DataError(
            f"{source}: not a text, but {what}",
            hint=_EXTRACT,
        )
    encoding = next((name for mark, name in _UTF16.items() if head.startswith(mark)), None)
    # Without a byte order mark every other byte of a text in Latin script is zero.
    even, odd = head[0:_PROBED:2], head[1:_PROBED:2]
    if encoding is None and len(odd) > 1 and 0 in (*even, *odd):
        encoding = "UTF-16LE" if not any(odd) and all(even) else "UTF-16BE" if not any(even) and all(odd) else None
    if encoding is not None:
        raise DataError(f"{source}: this is UTF-16, not UTF-8", hint=hint.format(encoding=encoding))


def _not_utf8(source: str, offset: int, lines: int, hint: str, near: bytes) -> DataError:
    return DataError(f"{source}:{lines + 1}: byte {offset} is not UTF-8", hint=hint.format(encoding=_likely_encoding(near)))


def _likely_encoding(text: bytes) -> str:
    """Return the likely name of an encoding with one byte for each character."""
    # ISO-8859-1 has control characters where Windows has quotation marks, dashes and the euro.
    return "CP1252" if any(0x80 <= byte < 0xA0 for byte in text) else "ISO-8859-1"
