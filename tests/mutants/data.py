"""Corpora with one error each."""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.data._files import Paths, find_files, fingerprint_files
from gptkit.components.data.text import TextDataSpec, read_documents
from gptkit.kinds.data import Document
from tests.mutants.mutant import Mutant


class ReadsItAll(Mutant, TextDataSpec):
    """Return a list, which holds the whole corpus in memory."""

    name: Literal["reads-it-all"] = "reads-it-all"
    caught_by = "streams"

    def documents(self, base: Path) -> Iterator[Document]:
        return list(super().documents(base))  # type: ignore[return-value]


class Shuffles(Mutant, TextDataSpec):
    """Yield documents in a random order."""

    name: Literal["shuffles"] = "shuffles"
    caught_by = "same-order"

    def documents(self, base: Path) -> Iterator[Document]:
        result = [*super().documents(base)] * 20
        random.shuffle(result)
        yield from result


class OneReader(Mutant, TextDataSpec):
    """Concurrent iterators share their documents."""

    running: ClassVar[list[Iterator[Document]]] = []
    name: Literal["one-reader"] = "one-reader"
    caught_by = "same-order"

    def documents(self, base: Path) -> Iterator[Document]:
        inner = super().documents(base)
        self.running.append(inner)
        try:
            while (document := next(self.running[0], None)) is not None:
                yield document
        finally:
            self.running.clear()


class AlwaysTheSame(Mutant, TextDataSpec):
    """Fingerprint of the path only, not of the contents."""

    name: Literal["always-the-same"] = "always-the-same"
    caught_by = "fingerprint"

    def fingerprint(self, base: Path) -> str:
        return str(self.path)


class NeverTheSame(Mutant, TextDataSpec):
    """Fingerprint of the current time."""

    name: Literal["never-the-same"] = "never-the-same"
    caught_by = "fingerprint"

    def fingerprint(self, base: Path) -> str:
        return str(time.perf_counter_ns())


class NeverEnds(Mutant, TextDataSpec):
    """Mark every document as continued."""

    name: Literal["never-ends"] = "never-ends"
    caught_by = "gives-documents"

    def documents(self, base: Path) -> Iterator[Document]:
        for document in super().documents(base):
            yield dataclasses.replace(document, ends=False)


class Empty(Mutant, TextDataSpec):
    """Yield no documents without an error."""

    name: Literal["empty"] = "empty"
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    caught_by = "gives-documents"

    def documents(self, base: Path) -> Iterator[Document]:
        yield from ()


class ForgetsAField(Mutant, TextDataSpec):
    """Fingerprint of the files, without the field that splits them into documents."""

    name: Literal["forgets-a-field"] = "forgets-a-field"
    caught_by = "fingerprint"
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({"separator": "\n\n"},)

    def fingerprint(self, base: Path) -> str:
        return fingerprint_files(find_files(self.path, self.patterns, base), "text")


class OwnFile(Mutant, TextDataSpec):
    """Base of corpora that read a file of the distribution, which is not below the kit's directory."""

    path: Paths = Field((str(Path(__file__)),), min_length=1, description="The file.")
    twin_class = TextDataSpec


class OneFingerprint(OwnFile):
    """The same fingerprint for all contents of the file."""

    name: Literal["one-fingerprint"] = "one-fingerprint"
    caught_by = "fingerprint"

    def fingerprint(self, base: Path) -> str:
        find_files(self.path, self.patterns, base)
        return f"file {self.path}"


class FailsWithoutItsFile(OwnFile):
    """Raise the error of the system where the file is missing."""

    name: Literal["fails-without-its-file"] = "fails-without-its-file"
    caught_by = "reports-its-files"
    also = ("fingerprint",)

    def documents(self, base: Path) -> Iterator[Document]:
        yield Document((base / self.path[0]).read_text(encoding="utf-8", errors="replace"), "file")


class SizesOnly(Mutant, TextDataSpec):
    """Fingerprint of names and sizes, without times."""

    name: Literal["sizes-only"] = "sizes-only"
    caught_by = "fingerprint"

    def fingerprint(self, base: Path) -> str:
        return repr([(path.name, path.stat().st_size) for path in find_files(self.path, self.patterns, base)])


class FirstFileOnly(Mutant, TextDataSpec):
    """Fingerprint of the first file."""

    name: Literal["first-file-only"] = "first-file-only"
    caught_by = "fingerprint"

    def fingerprint(self, base: Path) -> str:
        return fingerprint_files(find_files(self.path, self.patterns, base)[:1], "text", self.separator)


class AsListed(Mutant, TextDataSpec):
    """Read files in the order in which the system lists them."""

    name: Literal["as-listed"] = "as-listed"
    caught_by = "sorts-its-files"
    also = ("reports-its-files",)

    def documents(self, base: Path) -> Iterator[Document]:
        for name in os.listdir(base / "data"):  # noqa: PTH208
            if name.endswith((".txt", ".md")):
                yield from read_documents(base / "data" / name, name)

    def fingerprint(self, base: Path) -> str:
        return fingerprint_files(find_files(self.path, self.patterns, base), "text")


class AsMatched(AsListed):
    """Read files in the order in which a pattern matches them."""

    name: Literal["as-matched"] = "as-matched"
    caught_by = "sorts-its-files"
    also = ()
    twin_class = TextDataSpec

    def documents(self, base: Path) -> Iterator[Document]:
        for path in (base / "data").glob("*.txt"):
            yield from read_documents(path, path.name)


class FailsWithoutFiles(Mutant, TextDataSpec):
    """Raise the error of the system where the directory is missing."""

    name: Literal["fails-without-files"] = "fails-without-files"
    caught_by = "reports-its-files"

    def documents(self, base: Path) -> Iterator[Document]:
        for path in sorted((base / "data").iterdir()):
            if path.suffix in (".txt", ".md"):
                yield from read_documents(path, path.name)


class FailsOnBytes(Mutant, TextDataSpec):
    """Raise a UnicodeDecodeError for a file that is not UTF-8."""

    name: Literal["fails-on-bytes"] = "fails-on-bytes"
    caught_by = "reports-its-files"

    def documents(self, base: Path) -> Iterator[Document]:
        for path in find_files(self.path, self.patterns, base):
            yield Document(path.read_text(encoding="utf-8"), path.name)


class LeavesTheDirectory(Mutant, TextDataSpec):
    """Change the working directory of the process."""

    name: Literal["leaves-the-directory"] = "leaves-the-directory"
    caught_by = "gives-documents"

    def documents(self, base: Path) -> Iterator[Document]:
        os.chdir(base)
        yield from super().documents(base)
