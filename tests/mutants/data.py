"""Corpora with one error each."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from gptkit.components.data.text import TextDataSpec
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
