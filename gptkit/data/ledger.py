"""Hashes and lengths of all documents of a corpus, held in a temporary file."""

from __future__ import annotations

import contextlib
import tempfile
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from gptkit.core.atomic import writing

__all__ = ["SHIFT", "Ledger"]

SHIFT = 48
"""The bits of a hash above this one are the number of its bin."""

_BINS = 1 << (64 - SHIFT)
_CHUNK = 1 << 18
"""Number of documents that are held in memory."""

_ENTRY = np.dtype([("digest", "=u8"), ("length", "=i8")])


class Ledger:
    """Hashes and lengths of documents, read in chunks; a context that holds a temporary file if there are many.

    Attributes:
        documents: number of documents.
        characters: sum of their lengths.
    """

    def __init__(self) -> None:
        self.documents = self.characters = 0
        self._digests, self._lengths = array("Q"), array("q")
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be written cannot be flushed either
                self._file.close()

    def add(self, digest: bytes, length: int) -> None:
        """Append a document: eight bytes of hash, and its number of characters.

        Raises:
            FileError: the temporary file cannot be written.
        """
        self._digests.append(int.from_bytes(digest, "big"))
        self._lengths.append(length)
        self.documents += 1
        self.characters += length
        if len(self._digests) >= _CHUNK:
            with writing(Path(tempfile.gettempdir()) / "gptkit-split"):
                if self._file is None:
                    self._file = tempfile.TemporaryFile(prefix="gptkit-")  # noqa: SIM115  # closed by __exit__
                self._file.write(self._held().tobytes())
                self._file.flush()
            self._digests, self._lengths = array("Q"), array("q")

    def _held(self) -> NDArray[np.void]:
        entries = np.empty(len(self._digests), _ENTRY)
        entries["digest"], entries["length"] = self._digests, self._lengths
        return entries

    def chunks(self) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
        """Yield hashes and lengths in the order of the documents."""
        if self._file is not None:
            self._file.seek(0)
            while data := self._file.read(_CHUNK * _ENTRY.itemsize):
                entries = np.frombuffer(data, _ENTRY)
                yield entries["digest"], entries["length"]
        held = self._held()
        yield held["digest"], held["length"]

    def histogram(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the number of characters and of documents in each bin of hashes."""
        sizes_B, counts_B = np.zeros(_BINS, np.int64), np.zeros(_BINS, np.int64)
        for digests_N, lengths_N in self.chunks():
            bins_N = (digests_N >> np.uint64(SHIFT)).astype(np.int64)
            np.add.at(sizes_B, bins_N, lengths_N)
            counts_B += np.bincount(bins_N, minlength=_BINS)
        return sizes_B, counts_B

    def groups(self, first: int, last: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the hashes in bins `first` to `last`, ascending, each with the characters of all of its documents."""
        unique, sizes = np.empty(0, np.uint64), np.empty(0, np.int64)
        for digests_N, lengths_N in self.chunks():
            bins_N = digests_N >> np.uint64(SHIFT)
            inside_N = (bins_N >= first) & (bins_N <= last)
            digests = np.concatenate((unique, digests_N[inside_N]))
            lengths = np.concatenate((sizes, lengths_N[inside_N]))
            unique, group_of = np.unique(digests, return_inverse=True)
            sizes = np.zeros(len(unique), np.int64)
            np.add.at(sizes, group_of.reshape(-1), lengths)
        return unique, sizes

    def longest(self) -> tuple[np.uint64, int, int]:
        """Return hash, length and number of copies of the longest document; of several, the one of the smallest hash."""
        longest, length, copies = np.uint64(0), -1, 0
        for digests_N, lengths_N in self.chunks():
            top = int(lengths_N.max(initial=-1))
            if top < length or not len(digests_N):
                continue
            candidate = digests_N[lengths_N == top].min()
            if top > length or candidate < longest:
                longest, length = candidate, top
        for digests_N, _ in self.chunks():
            copies += int((digests_N == longest).sum())
        return longest, length, copies

    def sides(self, selects: Callable[[NDArray[np.uint64]], NDArray[np.bool_]], side: int) -> NDArray[np.int8]:
        """Return `side` for each document whose hash is selected, and 0 for the others."""
        parts = [selects(digests_N).astype(np.int8) * np.int8(side) for digests_N, _ in self.chunks()]
        return np.concatenate(parts)
