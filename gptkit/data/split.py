"""Train/validation split of documents, based on their text.

A trained tokenizer must not be fitted on validation documents, so the split precedes tokenization. It depends on a hash of
each document's text: the order of the corpus does not bias it, duplicates of a document are on the same side, and the split
does not depend on the location, the machine or the file layout.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gptkit.core.errors import DataError
from gptkit.data.ledger import SHIFT as _SHIFT
from gptkit.data.ledger import Ledger
from gptkit.kinds.data import DataSpec, Document

__all__ = ["Side", "Split", "corpus_texts", "plan_split", "split_documents"]

Side = Literal["train", "validation"]

_log = logging.getLogger("gptkit")
_TRAIN, _VALIDATION, _CUT = 0, 1, 2
_TRIES = 1000
"""Maximum number of documents tried to close the gap between the held-out and the requested fraction."""

_REPORTED = 64 << 20
"""Number of characters between two calls of the progress callback."""


@dataclass(frozen=True, eq=False)
class Split:
    """The split of one corpus.

    Attributes:
        sides: for each document 0 (train), 1 (validation) or 2 (cut: the end is validation).
        characters: number of characters of the whole corpus.
        cut_at: training characters of a cut document; the cut is moved back by up to `slack` to the end of a line.
        slack: see `cut_at`.
        parts: the splits of the parts of a mixture, in place of one for all; empty for another corpus.
    """

    sides: NDArray[np.int8]
    characters: int
    cut_at: int = 0
    slack: int = 0
    parts: tuple[Split, ...] = ()

    @classmethod
    def joined(cls, parts: Sequence[Split]) -> Split:
        """Return the split of a mixture."""
        sides = np.concatenate([part.sides for part in parts])
        return cls(sides, sum(part.characters for part in parts), parts=tuple(parts))

    @property
    def documents(self) -> int:
        """Number of documents in the corpus."""
        return len(self.sides)


def plan_split(data: DataSpec, base: Path, progress: Callable[[int], None] | None = None) -> Split:
    """Read the corpus once and decide the split. Uses one byte of memory per document, and a temporary file.

    Whole documents are held out, in the order of their hashes, so that the fraction of characters is as close as possible
    to `data.validation`. If that gives less than half of the fraction, or leaves less than half of the rest for training (a
    few long documents), the end of the longest document is held out instead; likewise for a single document.

    Args:
        data: the corpus.
        base: directory that its relative paths are resolved against.
        progress: receives the number of characters read, from time to time.

    Raises:
        DataError: the corpus is empty, or too short to split; or its component returned something other than documents.
    """
    if data.parts():
        return Split.joined([plan_split(part, base, progress) for _, part in data.parts()])
    for caution in data.cautions(base):
        _log.warning("%s", caution)
    with Ledger() as ledger:
        digest, length = _digest(), 0
        reported = read = 0
        for document in _documents(data, base):
            digest.update(document.text.encode("utf-8", "surrogatepass"))
            length += len(document.text)
            read += len(document.text)
            if progress is not None and read >= reported + _REPORTED:
                reported = read
                progress(read)
            if document.ends:
                ledger.add(digest.digest(), length)
                digest, length = _digest(), 0
        if length:  # the last document was not marked as ended
            ledger.add(digest.digest(), length)
        if not ledger.characters:
            path = getattr(data, "path", None)
            where = "" if path is None else f" from {', '.join([path] if isinstance(path, str) else map(str, path))}"
            raise DataError(
                f"the corpus is empty: data {data.name!r} returned no text{where}", hint="Use files that contain text."
            )
        if not data.validation:
            return Split(np.zeros(ledger.documents, np.int8), ledger.characters)
        return _decide(ledger, data.validation)


def _documents(data: DataSpec, base: Path) -> Iterator[Document]:
    """Yield the documents of a corpus, or raise a `DataError` if its component returns something else."""
    documents = data.documents(base)
    what = f"data {data.name!r}: {type(data).__module__}.{type(data).__qualname__}.documents"
    hint = "Yield gptkit.kinds.data.Document(text, source) for each document."
    if not isinstance(documents, Iterable):
        raise DataError(f"{what} returned {type(documents).__name__}, not documents", hint=hint)
    for document in documents:
        if not isinstance(document, Document):
            raise DataError(f"{what} yielded {type(document).__name__}, not a Document", hint=hint)
        if not isinstance(document.text, str):
            raise DataError(f"{what} yielded a Document whose text is {type(document.text).__name__}, not str", hint=hint)
        yield document


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=8, person=b"gptkit split")


def _decide(ledger: Ledger, share: float) -> Split:
    characters, target = ledger.characters, share * ledger.characters
    held_out, have = _held_out(ledger, target)
    if target / 2 <= have <= characters - (characters - target) / 2 and have < characters:
        return Split(ledger.sides(held_out, _VALIDATION), characters)

    longest, length, copies = ledger.longest()
    if length < 2:
        raise DataError(
            f"the corpus is too short to split: its longest document has {length} character",
            hint="Use more text, or set `validation: 0`.",
        )
    cut_at = min(max(length - round(target / copies), 1), length - 1)
    slack = min(1000, cut_at // 2, (length - cut_at) // 2)
    return Split(ledger.sides(lambda digests_N: digests_N == longest, _CUT), characters, cut_at, slack)


def _held_out(ledger: Ledger, target: float) -> tuple[Callable[[NDArray[np.uint64]], NDArray[np.bool_]], int]:
    """Return a function that selects the held-out documents by their hashes, and the number of their characters."""
    sizes_B, counts_B = ledger.histogram()
    totals_B = np.cumsum(sizes_B)
    # The hashes below those of this bin are held out; those of this bin and a few more are decided one by one.
    first = min(int(np.searchsorted(totals_B, target, side="right")), len(totals_B) - 1)
    have = int(totals_B[first - 1]) if first else 0
    after_B = np.cumsum(counts_B[first + 1 :])
    last = min(first + 1 + int(np.searchsorted(after_B, 4 * _TRIES)), len(totals_B) - 1)
    low = np.uint64(first << _SHIFT)
    unique, sizes = ledger.groups(first, last)
    held = int(np.searchsorted(have + np.cumsum(sizes), target, side="right"))
    chosen = np.zeros(len(unique), bool)
    chosen[:held] = True
    have += int(sizes[:held].sum())
    for group in range(held, min(held + _TRIES, len(unique))):
        with_it = have + int(sizes[group])
        if abs(with_it - target) < abs(have - target) and with_it < ledger.characters:
            chosen[group], have = True, with_it
    selected = unique[chosen]
    return lambda digests_N: (digests_N < low) | np.isin(digests_N, selected), have


def split_documents(data: DataSpec, base: Path, split: Split) -> Iterator[tuple[Side, Document]]:
    """Yield every document (or piece of one) with its side; a cut document is yielded as two.

    Raises:
        DataError: the corpus has changed since it was split.
    """
    if split.parts:
        for (_, part), own in zip(data.parts(), split.parts, strict=True):
            yield from split_documents(part, base, own)
        return
    index = offset = characters = 0
    for document in data.documents(base):
        if index >= split.documents:
            raise _changed()
        side, length = split.sides[index], len(document.text)
        if side == _CUT:
            yield from _cut(document, split.cut_at - offset, split.slack)
        else:
            yield ("validation" if side == _VALIDATION else "train"), document
        offset += length
        characters += length
        if document.ends:
            index, offset = index + 1, 0
    if (index + (offset > 0), characters) != (split.documents, split.characters):
        raise _changed()


def _cut(document: Document, at: int, slack: int) -> Iterator[tuple[Side, Document]]:
    text = document.text
    if document.messages is not None:
        raise DataError(
            f"the corpus has too few conversations to hold some out: {document.source} is a large part of it, and a "
            "conversation is not cut",
            hint="Use more of them, or set `validation: 0`.",
        )
    if at <= 0:
        yield "validation", document
    elif at >= len(text):
        yield "train", replace(document, ends=document.ends or at == len(text))
    else:
        line_end = text.rfind("\n", max(at - slack, 0), at) + 1
        at = line_end or at
        before = tuple((start, min(end, at)) for start, end in document.masked if start < at)
        after = tuple((max(start - at, 0), end - at) for start, end in document.masked if end > at)
        yield "train", replace(document, text=text[:at], ends=True, masked=before)
        yield "validation", replace(document, text=text[at:], masked=after)


def _changed() -> DataError:
    return DataError("the corpus changed while it was read", hint="Retry when its files stop changing.")


def corpus_texts(data: DataSpec, base: Path, split: Split | None = None) -> Iterator[str]:
    """Yield the training texts, to fit a tokenizer; validation documents are excluded.

    Args:
        data: the corpus.
        base: directory that its relative paths are resolved against.
        split: result of `plan_split`, to avoid reading the corpus again.

    Raises:
        DataError: the corpus is missing, empty or unreadable.
    """
    split = split or plan_split(data, base)
    for side, document in split_documents(data, base, split):
        if side == "train" and document.text:
            yield document.text
