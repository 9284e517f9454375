"""Incremental decoding of bytes: UTF-8 without a byte order mark, line ends as line feeds."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator

from gptkit.core.errors import DataError
from gptkit.text.encodings import conversion, encoding_remedy, wide_encoding

__all__ = ["decode_utf8", "require_text"]

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


def decode_utf8(pieces: Iterable[bytes], source: str, command: str = "iconv {options} -t UTF-8") -> Iterator[str]:
    """Decode pieces of one text.

    Args:
        pieces: the bytes, split at any offset.
        source: the name of the file or stream, for messages.
        command: the command that converts it, with ``{options}`` for those of iconv that name its encoding.

    Yields:
        The text of each piece, without a byte order mark, every line end as a line feed.

    Raises:
        DataError: the bytes are not UTF-8 text; names the line and the byte.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    read = lines = 0
    before = ""
    for piece in pieces:
        if read == 0:
            require_text(piece, source, command)
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
            at = f"{source}:{line + 1}: byte {read - pending + error.start}"
            raise DataError(f"{at} is not UTF-8", hint=encoding_remedy(error, command, before)) from None
        if read == 0:
            text = text.removeprefix("\ufeff")
        read += len(piece)
        lines += piece.count(b"\n")
        before = text or before
        yield newlines.decode(text)
    try:
        yield newlines.decode(decoder.decode(b"", final=True), final=True)
    except UnicodeDecodeError as error:
        at = f"{source}:{lines + 1}: byte {read - len(error.object)}"
        raise DataError(f"{at} is not UTF-8", hint=encoding_remedy(error, command, before)) from None


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


def require_text(head: bytes, source: str, command: str) -> None:
    """Raise if a file begins like a known binary format, UTF-16 or UTF-32.

    Args:
        head: the beginning of the file.
        source, command: as for `decode_utf8`.

    Raises:
        DataError: it does; the hint says what to do.
    """
    what = next((what for magic, what in _BINARY.items() if head.startswith(magic)), None)
    if head[_TAR] == b"ustar":
        what = "a tar archive"
    if what is not None:
        _, renamed, suffix = what.rpartition("name it ")
        hint = f"Rename it to {source}{suffix}" if renamed else _EXTRACT
        raise DataError(f"{source}: not a text, but {what}", hint=hint)
    encoding = wide_encoding(head)
    if encoding is not None:
        raise DataError(f"{source}: this is {encoding[:6]}, not UTF-8", hint=conversion(encoding, command))
