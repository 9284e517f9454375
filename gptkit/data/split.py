"""Which documents train and which validate: decided on the text, before there are any tokens.

A tokenizer that learns must not see the validation documents, so the split cannot wait for token counts. It goes by a
hash of each document's text: no order of the corpus (alphabetical, by date) can bias it, copies of a document fall on
one side, and another place, machine or file layout gives the same split.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gptkit.core.errors import DataError
from gptkit.kinds.data import DataSpec, Document

__all__ = ["Side", "Split", "corpus_texts", "plan_split", "split_documents"]

Side = Literal["train", "validation"]

_TRAIN, _VALIDATION, _CUT = 0, 1, 2
_TRIES = 1000
"""How many documents are tried for the last gap between what is held out and the share asked for."""


@dataclass(frozen=True, eq=False)
class Split:
    """The split of one corpus.

    Attributes:
        sides: for each document 0 (train), 1 (validation) or 2 (cut in two, the end validates).
        characters: of the whole corpus.
        cut_at: characters of a cut document that train; the cut is moved back by up to `slack` to the end of a line.
        slack: see `cut_at`.
    """

    sides: NDArray[np.int8]
    characters: int
    cut_at: int = 0
    slack: int = 0

    @property
    def documents(self) -> int:
        """Number of documents in the corpus."""
        return len(self.sides)


def plan_split(data: DataSpec, base: Path) -> Split:
    """Read the corpus once and decide the split. Holds 16 bytes a document, however long the documents are.

    Whole documents are held out, in the order of their hashes, until the share of characters comes as close as it can to
    `data.validation`. Where that is less than half of the share or leaves less than half of the rest (a few long documents),
    the end of the longest is cut off instead; so is the end of a single one.

    Raises:
        DataError: the corpus is empty, or too short to be split.
    """
    digests, lengths = array("Q"), array("Q")
    digest, length = hashlib.blake2b(digest_size=8, person=b"gptkit split"), 0
    for document in data.documents(base):
        digest.update(document.text.encode("utf-8", "surrogatepass"))
        length += len(document.text)
        if document.ends:
            digests.append(int.from_bytes(digest.digest(), "big"))
            lengths.append(length)
            digest, length = hashlib.blake2b(digest_size=8, person=b"gptkit split"), 0
    if length:  # the last document said that it goes on
        digests.append(int.from_bytes(digest.digest(), "big"))
        lengths.append(length)
    characters = sum(lengths)
    if not characters:
        raise DataError(f"the corpus is empty: data {data.name!r} gave no text", hint="Give it files with text in them.")
    if not data.validation:
        return Split(np.zeros(len(lengths), np.int8), characters)
    return _decide(np.array(digests, np.uint64), np.array(lengths, np.int64), characters, data.validation)


def _decide(digests: NDArray[np.uint64], lengths: NDArray[np.int64], characters: int, share: float) -> Split:
    unique, first, group_of = np.unique(digests, return_index=True, return_inverse=True)
    group_of = group_of.reshape(-1)
    sizes = np.zeros(len(unique), np.int64)  # characters of all copies of a text
    np.add.at(sizes, group_of, lengths)
    target = share * characters

    held = int(np.searchsorted(np.cumsum(sizes), target, side="right"))
    chosen = np.zeros(len(unique), bool)
    chosen[:held] = True
    have = int(sizes[:held].sum())
    for group in range(held, min(held + _TRIES, len(unique))):
        with_it = have + int(sizes[group])
        if abs(with_it - target) < abs(have - target) and with_it < characters:
            chosen[group], have = True, with_it
    if target / 2 <= have <= characters - (characters - target) / 2 and have < characters:
        return Split(np.where(chosen[group_of], _VALIDATION, _TRAIN).astype(np.int8), characters)

    longest = int(np.argmax(lengths[first]))
    length, copies = int(lengths[first[longest]]), int((group_of == longest).sum())
    if length < 2:
        raise DataError(
            f"the corpus is too short to be split: its longest document has {length} character",
            hint="Give it more text, or set `validation: 0`.",
        )
    cut_at = min(max(length - round(target / copies), 1), length - 1)
    slack = min(1000, cut_at // 2, (length - cut_at) // 2)
    return Split(np.where(group_of == longest, _CUT, _TRAIN).astype(np.int8), characters, cut_at, slack)


def split_documents(data: DataSpec, base: Path, split: Split) -> Iterator[tuple[Side, Document]]:
    """Every document (or piece of one) with its side; a cut one comes as two documents.

    Raises:
        DataError: the corpus is no longer the one that was split.
    """
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
    text, source = document.text, document.source
    if at <= 0:
        yield "validation", document
    elif at >= len(text):
        yield "train", Document(text, source, document.ends or at == len(text))
    else:
        line_end = text.rfind("\n", max(at - slack, 0), at) + 1
        at = line_end or at
        yield "train", Document(text[:at], source)
        yield "validation", Document(text[at:], source, document.ends)


def _changed() -> DataError:
    return DataError("the corpus changed while it was read", hint="Start again when its files stay as they are.")


def corpus_texts(data: DataSpec, base: Path, split: Split | None = None) -> Iterator[str]:
    """The training texts, for a tokenizer that learns; validation documents are not among them.

    Args:
        data: the corpus.
        base: where its relative paths count from.
        split: what `plan_split` gave, to spare reading the corpus once more.

    Raises:
        DataError: the corpus is missing, empty or unreadable.
    """
    split = split or plan_split(data, base)
    for side, document in split_documents(data, base, split):
        if side == "train" and document.text:
            yield document.text
