"""Text files, directories and globs."""

from __future__ import annotations

import functools
import json
import logging
import re
import zlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from gptkit.components.data._files import (
    Paths,
    Patterns,
    caution_ignored,
    conversion_command,
    find_files,
    fingerprint_files,
    shown,
)
from gptkit.components.data._opening import COMPRESSED, chunks, open_file
from gptkit.kinds.data import DataSpec, Document
from gptkit.text.decoding import decode_utf8

_log = logging.getLogger("gptkit")

PIECE = 1 << 20
"""Longer documents are split into pieces of about this number of characters."""

_NEARBY = 1 << 16
_LINE_END = re.compile(r"(?<=\S)\n(?=\S)")
_SPACE = re.compile(r"(?<=\S) (?=\S)")


class TextDataSpec(DataSpec):
    """Text files, directories of them, and globs; UTF-8, plain or compressed (gzip, bzip2, xz, zstd).

    Every file is a document, or several separated by `separator`. Line ends are read as line feeds, a byte order mark
    is removed, and documents with only white space are skipped. A relative `path` is resolved against the
    directory of the spec file, including paths set by `--set`; for a preset, against the working directory.

    Notes:
        A document of more than a million characters is split into pieces, so a file may be larger than memory. A piece
        ends at the end of a line that is not followed by a blank, which is a token boundary for most tokenizers: the
        tokens are those of the whole text, except possibly the one at the boundary.
    """

    name: Literal["text"] = "text"
    path: Paths = Field(("data",), description="A file, a directory, a glob such as books/*.txt, or a list of them.")
    patterns: Patterns = Field(
        tuple(f"*{name}{suffix}" for suffix in COMPRESSED for name in (".txt", ".md")),
        description="Patterns for the names of files in a directory, at any depth.",
    )
    separator: str | None = Field(
        None,
        min_length=1,
        description="Text between two documents of one file, such as <|endoftext|>; line ends next to it are removed.",
    )

    def cautions(self, base: Path) -> Iterator[str]:
        return caution_ignored(self, self.path, self.patterns, base)

    def documents(self, base: Path) -> Iterator[Document]:
        several = False
        for path in find_files(self.path, self.patterns, base):
            several |= (yield from read_documents(path, shown(path, base), self.separator)) > 1
        if self.separator is not None and not several:
            _warn(", ".join(self.path), self.separator)

    def fingerprint(self, base: Path) -> str:
        return fingerprint_files(find_files(self.path, self.patterns, base), "text", self.separator)


def read_documents(
    path: Path, source: str, separator: str | None = None, piece: int = PIECE
) -> Generator[Document, None, int]:
    """Yield the documents of one text file, in pieces of about `piece` characters if they are longer.

    Returns:
        The number of documents, empty ones included: 1 if the separator does not occur.
    """
    if separator is not None:
        separator = separator.replace("\r\n", "\n").replace("\r", "\n")  # as the line ends of the text
    number, continued = 0, False
    blank: list[bytes] = []  # the first pieces of a document, compressed, while all of them are white space
    for text, ends in _split(_decode(path), separator, piece):
        named = source if separator is None else f"{source}, document {number + 1}"
        if separator is not None:
            text = text if continued or blank else text.lstrip("\n")
            text = text.rstrip("\n") if ends else text
        if continued or text.strip():
            yield from (Document(zlib.decompress(space).decode(), named, ends=False) for space in blank)
            blank.clear()
            yield Document(text, named, ends)
            continued = not ends
        elif ends:
            blank.clear()
        elif text:
            blank.append(zlib.compress(text.encode()))
        number += ends
    return number


@functools.cache
def _warn(source: str, separator: str) -> None:
    """Warn of a separator that no file contains, once: a corpus is read several times."""
    remedy = "remove it, or set it to the text between two documents"
    escaped = separator.replace("\\r", "").replace("\\n", "\n")
    if escaped != separator:
        remedy = f"\\n is a line feed in double quotes only: {json.dumps(escaped)}"
    message = "%s: data.separator (%s) does not occur, so each file is one document; %s"
    _log.warning(message, source, separator if separator.isprintable() else json.dumps(separator), remedy)


def _split(texts: Iterable[str], separator: str | None, piece: int) -> Iterator[tuple[str, bool]]:
    """Yield documents in pieces, each with whether it is the last of its document."""
    held = ""
    spare = len(separator or "")  # the text read so far may end with part of a separator
    for text in texts:
        held += text
        if separator is not None:
            *whole, held = held.split(separator)
            for document in whole:
                yield document, True
        while len(held) > piece + spare:
            cut = _border(held, piece)
            yield held[:cut], False
            held = held[cut:]
    yield held, True


def _border(text: str, limit: int) -> int:
    """Return the index at which to split a text before `limit`, a token boundary for most tokenizers."""
    first = max(limit - _NEARBY, limit // 2)
    for pattern, after in ((_LINE_END, 1), (_SPACE, 0)):
        place = -1
        for match in pattern.finditer(text, first, limit):
            place = match.start() + after
        if place > 0:
            return place
    return limit


def _decode(path: Path) -> Iterator[str]:
    with open_file(path) as file:
        yield from decode_utf8(chunks(file), str(path), conversion_command(path))
