"""Jobs of a preparation: documents that are encoded together, in this process or another.

This module and those that it imports do not use torch, so that worker processes start quickly and stay small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.core.errors import TokenizerError
from gptkit.data.encoding import Encoder
from gptkit.data.files import token_dtype
from gptkit.data.split import Side, Split, split_documents
from gptkit.kinds.data import DataSpec, Document
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.text.base import END

__all__ = ["Chunk", "Encoded", "Job", "JobEncoder", "jobs"]


@dataclass(frozen=True)
class Job:
    """Consecutive documents of the corpus, each with its side.

    Attributes:
        documents: the documents.
        continued: the sides whose first document continues one of an earlier job.
        part: number of the mixture's part that the documents belong to.
    """

    documents: Sequence[tuple[Side, Document]]
    continued: frozenset[Side]
    part: int = 0


@dataclass(frozen=True, eq=False)
class Chunk:
    """Tokens of one side that a job results in.

    Attributes:
        tokens: (n,) ids.
        starts: indices at which documents begin, ascending; several are equal where a document has no tokens.
        masked: (n,) bool; None if no token is masked.
        characters, bytes: size of the text.
        restored: whether decoding the tokens restores the text.
    """

    tokens: NDArray[np.unsignedinteger]
    starts: NDArray[np.int64]
    masked: NDArray[np.bool_] | None
    characters: int
    bytes: int
    restored: bool


@dataclass(frozen=True, eq=False)
class Encoded:
    """Result of a job.

    Attributes:
        chunks: the tokens of each side with documents.
        part: number of the mixture's part.
        separator: source of the first document that contains a start or end token as text, and that token; or None.
    """

    chunks: dict[Side, Chunk]
    part: int
    separator: tuple[str, str] | None

    @property
    def characters(self) -> int:
        """Number of characters of the job."""
        return sum(chunk.characters for chunk in self.chunks.values())


def jobs(data: DataSpec, base: Path, split: Split, size: int) -> Iterator[Job]:
    """Yield the jobs of a corpus, each of about `size` characters of one part."""
    parts = [part for _, part in data.parts()] or [data]
    for number, (part, own) in enumerate(zip(parts, split.parts or [split], strict=True)):
        yield from _jobs(split_documents(part, base, own), size, number)


def _jobs(documents: Iterable[tuple[Side, Document]], size: int, part: int) -> Iterator[Job]:
    continues: set[Side] = set()
    batch: list[tuple[Side, Document]] = []
    before, n = frozenset(continues), 0
    for side, document in documents:
        batch.append((side, document))
        (continues.discard if document.ends else continues.add)(side)
        n += len(document.text) + 64  # so that many tiny documents fill a job too
        if n >= size:
            yield Job(batch, before, part)
            batch, before, n = [], frozenset(continues), 0
    if batch:
        yield Job(batch, before, part)


class JobEncoder:
    """Encoder of jobs.

    Args:
        tokenizer: encodes the texts.
        threads: let the tokenizer use several threads.
    """

    def __init__(self, tokenizer: Tokenizer, *, threads: bool = True) -> None:
        self._tokenizer = tokenizer
        self._encode = Encoder(tokenizer, threads=threads)
        self._dtype = token_dtype(tokenizer.vocab_size)
        start, end = tokenizer.start_id, tokenizer.end_id
        # One token between two documents serves as both.
        self._start, self._end = (None if start == end else start), end
        # What corpora separate texts by, and this tokenizer does too.
        self._separators = {END, *(text for text, token in tokenizer.special_tokens.items() if token in (start, end))}

    def __call__(self, job: Job) -> Encoded:
        """Encode a job.

        Raises:
            TokenizerError: the tokenizer rejects a text (the message names its source), or returns an invalid id.
        """
        sides = dict.fromkeys(side for side, _ in job.documents)
        builders = {side: _Builder(self._dtype, self._tokenizer) for side in sides}
        opens = {side: side not in job.continued for side in sides}
        separator = None
        encoded = self._encode([document for _, document in job.documents])
        for (side, document), (ids, masked) in zip(job.documents, encoded, strict=True):
            builder, plain = builders[side], document.messages is None
            if opens[side]:
                builder.begin()
                if plain and self._start is not None:  # a chat template puts its own tokens at the beginning and the end
                    builder.add([self._start])
            builder.add(ids, masked)
            if plain and document.ends and self._end is not None:
                builder.add([self._end])
            opens[side] = document.ends
            builder.characters += len(document.text)
            builder.bytes += len(document.text.encode("utf-8", "surrogatepass"))
            restored = self._tokenizer.lossless or self._tokenizer.decode(map(int, ids)) == document.text
            builder.restored = builder.restored and restored
            if separator is None and plain:
                spelled = next((token for token in self._separators if token in document.text), None)
                separator = None if spelled is None else (document.source, spelled)
        return Encoded({side: builder.chunk() for side, builder in builders.items()}, job.part, separator)


class _Builder:
    """Tokens of one side, while its documents are added."""

    def __init__(self, dtype: np.dtype[np.unsignedinteger], tokenizer: Tokenizer) -> None:
        self._dtype, self._vocab_size = dtype, tokenizer.vocab_size
        self._name = f"the tokenizer ({type(tokenizer).__module__}.{type(tokenizer).__qualname__})"
        self._tokens: list[NDArray[np.unsignedinteger]] = []
        self._masks: list[tuple[int, NDArray[np.bool_]]] = []
        self._starts: list[int] = []
        self._n = 0
        self.characters = self.bytes = 0
        self.restored = True

    def begin(self) -> None:
        self._starts.append(self._n)

    def add(self, ids: Sequence[int] | NDArray[np.integer[Any]], masked_N: NDArray[np.bool_] | None = None) -> None:
        array_N = np.asarray(ids)
        if not array_N.size and array_N.ndim == 1:
            return
        if array_N.ndim != 1 or not np.issubdtype(array_N.dtype, np.integer):
            seen = (
                "None" if ids is None else f"a {type(ids).__name__} of {array_N.dtype.type.__name__}, shape {array_N.shape}"
            )
            raise TokenizerError(
                f"{self._name} returned {seen}, not token ids",
                hint="Return a list of integers from `encode`, one for each token.",
            )
        low, high = int(array_N.min()), int(array_N.max())
        if low < 0 or high >= self._vocab_size:
            raise TokenizerError(
                f"{self._name} returned the id {low if low < 0 else high}, but its vocabulary has {self._vocab_size} tokens",
                hint="Correct `encode` or `vocab_size` of the tokenizer: ids are 0 to vocab_size - 1.",
            )
        if masked_N is not None and masked_N.any():
            self._masks.append((self._n, masked_N))
        self._tokens.append(array_N.astype(self._dtype))
        self._n += len(array_N)

    def chunk(self) -> Chunk:
        tokens = np.concatenate(self._tokens) if self._tokens else np.empty(0, self._dtype)
        masked = np.zeros(self._n, np.bool_) if self._masks else None
        if masked is not None:
            for first, part in self._masks:
                masked[first : first + len(part)] = part
        starts = np.array(self._starts, np.int64)
        return Chunk(tokens, starts, masked, self.characters, self.bytes, self.restored)
