"""Shared code of data components that read files: opening them, compressed or not."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from gptkit.core.errors import DataError

__all__ = ["COMPRESSED", "chunks", "open_file"]

COMPRESSED = ("", ".gz", ".bz2", ".xz", ".zst")
"""Suffixes of files that can be read: not compressed, and compressed by each program."""


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file, decompressed if its name ends in ``.gz``, ``.bz2``, ``.xz`` or ``.zst``.

    Raises:
        DataError: the file cannot be opened or read.
    """
    program = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}.get(path.suffix.lower(), "")
    try:
        if program and not path.stat().st_size:  # not an archive of an empty file, although gzip reads it as one
            raise EOFError
        with _opened(path, program) as file:
            yield file
    except OSError as error:
        if program and error.errno is None:  # of the decompressor
            raise _not_whole(path, program, error) from None
        raise DataError(f"{path}: {error.strerror or error}") from None
    except EOFError:
        raise DataError(
            f"{path}: the {program} file stops before its end", hint="Get it again: it was not copied whole."
        ) from None
    except Exception as error:
        if program and type(error).__name__ in ("error", "LZMAError", "ZstdError"):  # of zlib, lzma and zstd
            raise _not_whole(path, program, error) from None
        raise


def _not_whole(path: Path, program: str, error: Exception) -> DataError:
    hint = f"Get it again, or take {path.suffix} from its name if it is not compressed."
    cause = "" if "b'" in str(error) else f": {error}"  # Python shows the first bytes of other files
    return DataError(f"{path}: not a whole {program} file{cause}", hint=hint)


def _opened(path: Path, program: str) -> Any:
    # The modules are imported where they are used: most corpora need none of them.
    if program == "gzip":
        import gzip

        return gzip.open(path)
    if program == "bzip2":
        import bz2

        return _whole(path, bz2.BZ2Decompressor)
    if program == "xz":
        import lzma

        return _whole(path, lzma.LZMADecompressor)
    return _zstd(path) if program == "zstd" else path.open("rb")


def _whole(path: Path, decompressor: Callable[[], Any]) -> BinaryIO:
    """Open a file of compressed streams, all of which are read.

    The readers of bz2 and lzma end without an error where a stream after the first one does not begin as it should, and a
    program that compresses in parallel writes a stream for each megabyte.
    """
    return io.BufferedReader(_Streams(path.open("rb"), decompressor), 1 << 16)


class _Streams(io.RawIOBase):
    def __init__(self, file: BinaryIO, decompressor: Callable[[], Any]) -> None:
        self._file = file
        self._make, self._stream = decompressor, decompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data:
            pending = b""
            if self._stream.eof:
                pending = self._stream.unused_data.lstrip(b"\0")  # streams may be padded
                while not pending:
                    more = self._file.read(1 << 16)
                    if not more:
                        return 0
                    pending = more.lstrip(b"\0")
                self._stream = self._make()
            elif self._stream.needs_input:
                pending = self._file.read(1 << 16)
                if not pending:
                    raise EOFError
            data = self._stream.decompress(pending, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _zstd(path: Path) -> Any:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        hint = "Install it with pip install 'gptkit[zstd]', or decompress the file."
        raise DataError(f"{path}: reading zstd files requires the package backports.zstd", hint=hint) from None
    return zstd.open(path)


def chunks(file: BinaryIO, size: int = 1 << 20) -> Iterator[bytes]:
    """Yield the bytes of an open file in chunks of `size`."""
    while chunk := file.read(size):
        yield chunk
