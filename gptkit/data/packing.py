"""Packing of documents into data windows by best fit, so that documents are cut only where they are longer than one.

Shapes: B batch, T = context_length, P pieces of documents, W data windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gptkit.core.errors import DataError
from gptkit.data.files import TokenFile
from gptkit.data.windows import Batch, Epochs
from gptkit.nn.head import IGNORED

__all__ = ["PackedWindows", "Packing", "best_fit", "pack"]

_GROUP = 1 << 16
"""Number of consecutive documents that are packed together. More would save little, and need more memory at once."""


class Packing(NamedTuple):
    """Pieces of documents in data windows.

    Attributes:
        starts_P: index of each piece's first token, in the order of the data windows.
        lengths_P: number of inputs of each piece; the token after the last one is its last target.
        first_W: index of each data window's first piece; ends with P.
        n_cut: number of documents that do not fit into one data window.
    """

    starts_P: NDArray[np.int64]
    lengths_P: NDArray[np.int64]
    first_W: NDArray[np.int64]
    n_cut: int


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack items into bins by best fit, the largest first; return the indices in each bin.

    Every item is put into the bin with the least room that suffices, of several the one used last.

    Paper:
        https://arxiv.org/abs/2404.10830
    """
    bins: list[list[int]] = []
    of_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set if a bin has room r
    for index in sorted(range(len(sizes)), key=lambda item: -sizes[item]):
        size = sizes[index]
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            number = of_room[room].pop()
            if not of_room[room]:
                rooms ^= 1 << room
        else:
            room, number = capacity, len(bins)
            bins.append([])
        bins[number].append(index)
        room -= size
        if room:
            of_room[room].append(number)
            rooms |= 1 << room
    return bins


def pack(document_starts: NDArray[np.int64], n_tokens: int, context_length: int) -> Packing:
    """Pack documents into data windows.

    A document of n tokens has n - 1 inputs, each with the following token as its target. One with more inputs than a data
    window is cut into full ones; what remains of it is packed like a short document. Every token but the first of a document
    is a target once.

    Args:
        document_starts: index of each document's first token, ascending.
        n_tokens: number of tokens.
        context_length: T.
    """
    starts, lengths, counts, n_cut = [], [], [], 0
    for first in range(0, len(document_starts), _GROUP):
        begin_D = np.asarray(document_starts[first : first + _GROUP], np.int64)
        following = document_starts[first + _GROUP] if first + _GROUP < len(document_starts) else n_tokens
        sizes_D = np.append(begin_D[1:], following) - begin_D - 1
        full_D, rest_D = np.divmod(sizes_D, context_length)
        n_cut += int((sizes_D > context_length).sum())
        windows = [
            [(begin + context_length * piece, context_length)]
            for begin, full in zip(begin_D.tolist(), full_D.tolist(), strict=True)
            for piece in range(full)
        ]
        remains = np.flatnonzero(rest_D > 0)
        rest_R = rest_D[remains].tolist()
        start_R = (begin_D + full_D * context_length)[remains].tolist()
        windows += [[(start_R[item], rest_R[item]) for item in sorted(items)] for items in best_fit(rest_R, context_length)]
        windows.sort()
        starts.append(np.array([start for window in windows for start, _ in window], np.int64))
        lengths.append(np.array([length for window in windows for _, length in window], np.int64))
        counts.append(np.array([len(window) for window in windows], np.int64))
    if not starts:
        return Packing(np.empty(0, np.int64), np.empty(0, np.int64), np.zeros(1, np.int64), 0)
    first_W = np.concatenate(([0], np.cumsum(np.concatenate(counts))))
    return Packing(np.concatenate(starts), np.concatenate(lengths), first_W, n_cut)


@dataclass(frozen=True)
class Waste:
    """Efficiency of a packing.

    Attributes:
        windows: number of data windows.
        padding: share of their positions that hold no token.
        cut: number of documents that do not fit into one data window.
    """

    windows: int
    padding: float
    cut: int


class PackedWindows:
    """Data windows with packed documents, as batches of a training step.

    Positions after the last document of a data window hold the id 0, are excluded from the loss, and have the
    document id -1: they are a document of their own, which auxiliary losses do not count.

    Args:
        file: the tokens.
        context_length: T.
        shuffle: shuffle the data windows in each epoch.
        what: description of the tokens, for messages.

    Raises:
        DataError: no document has two tokens.
    """

    def __init__(self, file: TokenFile, context_length: int, *, shuffle: bool = False, what: str = "the text") -> None:
        self.file, self.context_length = file, context_length
        self.packing = pack(file.starts, len(file.tokens), context_length)
        if not len(self):
            raise DataError(f"{what} has no document of two tokens or more", hint="Use more text.")
        self._epochs = Epochs(len(self), shuffle)

    def __len__(self) -> int:
        return len(self.packing.first_W) - 1

    @property
    def waste(self) -> Waste:
        """The efficiency of the packing."""
        used = int(self.packing.lengths_P.sum())
        return Waste(len(self), 1 - used / (len(self) * self.context_length), self.packing.n_cut)

    def batch(self, step: int, batch_size: int, seed: int = 0, *, first: int | None = None) -> Batch:
        """Return the batch of a training step (from 0), a function of the arguments; see `Windows.batch`."""
        return self.gather(self._epochs.indices(step * batch_size if first is None else first, batch_size, seed))

    def gather(self, indices: Sequence[int] | NDArray[np.int64]) -> Batch:
        """Return data windows by their indices."""
        shape = (len(indices), self.context_length)
        inputs_BT, targets_BT = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
        documents_BT = np.zeros(shape, np.int64)
        for row, index in enumerate(np.asarray(indices).tolist()):
            at = 0
            pieces = range(int(self.packing.first_W[index]), int(self.packing.first_W[index + 1]))
            for number, piece in enumerate(pieces):
                start, length = int(self.packing.starts_P[piece]), int(self.packing.lengths_P[piece])
                ids = self.file.tokens[start : start + length + 1]
                inputs_BT[row, at : at + length] = ids[:-1]
                targets_BT[row, at : at + length] = ids[1:]
                documents_BT[row, at : at + length] = number
                if self.file.masked is not None:
                    masked = self.file.masked[start + 1 : start + length + 1]
                    targets_BT[row, at : at + length][masked] = IGNORED
                at += length
            documents_BT[row, at:] = -1
        return Batch(torch.from_numpy(inputs_BT), torch.from_numpy(targets_BT), torch.from_numpy(documents_BT))
