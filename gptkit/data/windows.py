"""Data windows over a sequence of tokens, with targets shifted by one token.

Shapes: B batch, T = context_length. Every batch is a pure function of its step and a seed, so a resumed run continues with
exactly the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptkit.core.errors import DataError
from gptkit.data.sharded import Array, rows
from gptkit.nn.head import IGNORED

__all__ = ["Batch", "Epochs", "Windows"]


class Batch(NamedTuple):
    """Batch of data windows.

    Attributes:
        inputs_BT: int64 ids.
        targets_BT: int64 ids, the token after each input; -100 where that token is masked.
        documents_BT: int64, index of each input's document within its data window, from 0; None unless requested.
    """

    inputs_BT: Tensor
    targets_BT: Tensor
    documents_BT: Tensor | None = None


class Epochs:
    """Order of data windows over several epochs.

    Args:
        n_windows: number of data windows.
        shuffle: shuffle them in each epoch.
    """

    def __init__(self, n_windows: int, shuffle: bool) -> None:
        self._n_windows, self._shuffle = n_windows, shuffle
        self._epoch: tuple[tuple[int, int], NDArray[np.int64]] | None = None

    def indices(self, first: int, count: int, seed: int) -> NDArray[np.int64]:
        """Return the next `count` data windows after the `first` ones; a function of the arguments."""
        epochs, indices = np.divmod(np.arange(first, first + count), self._n_windows)
        if self._shuffle:
            for epoch in np.unique(epochs):
                in_epoch = epochs == epoch
                indices[in_epoch] = self._permutation(seed, int(epoch))[indices[in_epoch]]
        return indices

    def _permutation(self, seed: int, epoch: int) -> NDArray[np.int64]:
        if self._epoch is None or self._epoch[0] != (seed, epoch):
            self._epoch = (seed, epoch), np.random.default_rng([seed, epoch]).permutation(self._n_windows)
        return self._epoch[1]


class Windows:
    """Data windows over tokens, accessible by index, as ordered batches, or as batches of a training step.

    Data window i begins at token ``i * stride``; ``windows[i]`` is (input_T, target_T), int64 tensors. Data windows that
    exceed the last token are excluded.

    Args:
        tokens: (n,) ids, for example a memory map; in one array or several.
        context_length: T.
        stride: distance between ordered data windows; T by default, so that no token is an input twice.
        order: data windows that `batch` returns: at random positions, or in order, epoch after epoch.
        shuffle: shuffle ordered data windows in each epoch.
        document_starts: (n_documents,) index of each document's first token, ascending; batches then include document
            indices.
        masked: (n,) bool, tokens that are inputs but excluded from the loss; none by default.
        what: description of the tokens, for messages.

    Raises:
        DataError: there are fewer than T + 1 tokens.
    """

    def __init__(
        self,
        tokens: Array,
        context_length: int,
        *,
        stride: int | None = None,
        order: Literal["random", "ordered"] = "ordered",
        shuffle: bool = False,
        document_starts: NDArray[np.int64] | None = None,
        masked: Array | None = None,
        what: str = "the text",
    ) -> None:
        if len(tokens) < context_length + 1:
            raise DataError(
                f"{what} has {len(tokens)} tokens, but a data window of {context_length} requires {context_length + 1}",
                hint=f"Use more text, or shorter data windows: training.window of at most {len(tokens) - 1}."
                if len(tokens) > 1
                else "Use more text.",
            )
        self.tokens = tokens
        self.context_length = context_length
        self.stride = stride or context_length
        self.order = order
        self.shuffle = shuffle
        self.document_starts = document_starts
        self.masked = masked
        self._epochs = Epochs(len(self), shuffle)

    def __len__(self) -> int:
        return (len(self.tokens) - self.context_length - 1) // self.stride + 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        inputs_BT, targets_BT, _ = self.gather([index % len(self) * self.stride])
        return inputs_BT[0], targets_BT[0]

    def batch(self, step: int, batch_size: int, seed: int = 0, *, first: int | None = None) -> Batch:
        """Return the batch of a training step (from 0), a function of the arguments; `first` as for `starts`."""
        return self.gather(self.starts(step, batch_size, seed, first=first))

    def starts(self, step: int, batch_size: int, seed: int = 0, *, first: int | None = None) -> NDArray[np.int64]:
        """Return the first token of each data window of a training step, (B,).

        Args:
            step: the step, from 0.
            batch_size: B.
            seed: seed of the random order.
            first: number of ordered data windows read by previous steps; ``step * batch_size`` by default.
        """
        if self.order == "random":
            generator = np.random.default_rng([seed, step])
            return generator.integers(0, len(self.tokens) - self.context_length, size=batch_size)
        first = step * batch_size if first is None else first
        return self._epochs.indices(first, batch_size, seed) * self.stride

    def gather(self, starts: Sequence[int] | NDArray[np.int64]) -> Batch:
        """Return the data windows that begin at the given tokens."""
        begin_B = np.asarray(starts, dtype=np.int64)
        windows = torch.from_numpy(rows(self.tokens, begin_B, self.context_length + 1).astype(np.int64))
        documents = None if self.document_starts is None else torch.from_numpy(self._documents(begin_B))
        targets_BT = windows[:, 1:].contiguous()
        if self.masked is not None:
            masked_BT = torch.from_numpy(rows(self.masked, begin_B, self.context_length + 1)[:, 1:])
            # Not in place: with one data window the targets may be a view of it, as the inputs are.
            targets_BT = targets_BT.masked_fill(masked_BT, IGNORED)
        return Batch(windows[:, :-1].contiguous(), targets_BT, documents)

    def _documents(self, begin_B: NDArray[np.int64]) -> NDArray[np.int64]:
        assert self.document_starts is not None
        # Each document that begins after a data window's first token increments the index from there.
        low_B = np.searchsorted(self.document_starts, begin_B, side="right")
        high_B = np.searchsorted(self.document_starts, begin_B + self.context_length, side="left")
        marks_BT = np.zeros((len(begin_B), self.context_length), np.int64)
        for row, (low, high) in enumerate(zip(low_B, high_B, strict=True)):
            marks_BT[row, self.document_starts[low:high] - begin_B[row]] = 1
        return marks_BT.cumsum(axis=1)

    def batches(self, batch_size: int, max_batches: int | None = None) -> Iterator[Batch]:
        """Iterate over the ordered data windows in batches, in a fixed order, for validation.

        Every target occurs once if the stride is the context length: the tokens after the last complete data window form a
        shorter one in the last batch. Batches differ in size and masks, so weight them by the number of targets that are not
        -100.

        Args:
            batch_size: B; the last batch of complete data windows may be smaller.
            max_batches: limit the number of batches, with data windows spread evenly over the tokens.
        """
        count = len(self)
        limit = -(-count // batch_size) if max_batches is None else max_batches
        chosen = np.arange(count, dtype=np.int64)
        if count > limit * batch_size:
            chosen = np.arange(limit * batch_size, dtype=np.int64) * count // (limit * batch_size)
        for first in range(0, len(chosen), batch_size):
            yield self.gather(chosen[first : first + batch_size] * self.stride)
        rest = (len(self.tokens) - 1) - ((count - 1) * self.stride + self.context_length)
        room = max_batches is None or -(-count // batch_size) < max_batches
        if rest > 0 and room and self.stride <= self.context_length:
            tail = Windows(self.tokens[-rest - 1 :], rest, masked=None if self.masked is None else self.masked[-rest - 1 :])
            if self.document_starts is not None:
                tail.document_starts = self.document_starts - (len(self.tokens) - rest - 1)
            yield tail.gather([0])
