"""Windows of the context length over a row of tokens; their targets are the same shifted by one.

Shapes: B windows of a batch, T = context_length. Every batch is a pure function of its step and a seed, so a run that
was killed goes on with exactly the batches it would have had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptkit.core.errors import DataError

__all__ = ["Batch", "Windows"]


class Batch(NamedTuple):
    """Some windows.

    Attributes:
        inputs_BT: int64 ids.
        targets_BT: int64 ids, the token after each input.
        documents_BT: int64, the number of each input's document within its window, from 0; None when not asked for.
    """

    inputs_BT: Tensor
    targets_BT: Tensor
    documents_BT: Tensor | None = None


class Windows:
    """Windows over tokens, to be had one by one, as batches in order, or as batches of a training step.

    Window i begins at token ``i * stride``; ``windows[i]`` is its (input_T, target_T), int64 tensors. The last windows
    that would run past the end are left out.

    Args:
        tokens: (n,) ids; a memory map does well.
        context_length: T.
        stride: distance between the starts of ordered windows; T by default, so that no token is an input twice.
        order: what `batch` takes: windows at random places, or the ordered ones, epoch after epoch.
        shuffle: ordered windows come in a new order each epoch.
        document_starts: (n_documents,) where each document begins, ascending; batches then carry document numbers.
        what: what the tokens are, for messages.

    Raises:
        DataError: there are fewer than T + 1 tokens.
    """

    def __init__(
        self,
        tokens: NDArray[np.integer[Any]],
        context_length: int,
        *,
        stride: int | None = None,
        order: Literal["random", "ordered"] = "ordered",
        shuffle: bool = False,
        document_starts: NDArray[np.int64] | None = None,
        what: str = "the text",
    ) -> None:
        if len(tokens) < context_length + 1:
            raise DataError(
                f"{what} has {len(tokens)} tokens, fewer than one window takes: {context_length} and the target of the last",
                hint=f"Give it more text, or a context_length of at most {len(tokens) - 1}."
                if len(tokens) > 1
                else "Give it more text.",
            )
        self.tokens = tokens
        self.context_length = context_length
        self.stride = stride or context_length
        self.order = order
        self.shuffle = shuffle
        self.document_starts = document_starts
        # Row i is the window that begins at token i, a view that costs nothing.
        self._all = np.lib.stride_tricks.sliding_window_view(tokens, context_length + 1)
        self._epoch: tuple[tuple[int, int], NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return (len(self.tokens) - self.context_length - 1) // self.stride + 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        window = torch.from_numpy(self._all[index % len(self) * self.stride].astype(np.int64))
        return window[:-1], window[1:]

    def batch(self, step: int, batch_size: int, seed: int = 0, *, first: int | None = None) -> Batch:
        """The batch of a training step (from 0), the same for the same arguments; `first` as for `starts`."""
        return self.gather(self.starts(step, batch_size, seed, first=first))

    def starts(self, step: int, batch_size: int, seed: int = 0, *, first: int | None = None) -> NDArray[np.int64]:
        """Where the windows of a training step begin, (B,).

        Args:
            step: the step, from 0.
            batch_size: B.
            seed: of random order.
            first: how many ordered windows the previous steps read; ``step * batch_size`` by default.
        """
        if self.order == "random":
            generator = np.random.default_rng([seed, step])
            return generator.integers(0, len(self.tokens) - self.context_length, size=batch_size)
        first = step * batch_size if first is None else first
        epochs, places = np.divmod(np.arange(first, first + batch_size), len(self))
        if self.shuffle:
            for epoch in np.unique(epochs):
                here = epochs == epoch
                places[here] = self._permutation(seed, int(epoch))[places[here]]
        return places * self.stride

    def _permutation(self, seed: int, epoch: int) -> NDArray[np.int64]:
        if self._epoch is None or self._epoch[0] != (seed, epoch):
            self._epoch = (seed, epoch), np.random.default_rng([seed, epoch]).permutation(len(self))
        return self._epoch[1]

    def gather(self, starts: Sequence[int] | NDArray[np.int64]) -> Batch:
        """The windows that begin at some tokens."""
        begin_B = np.asarray(starts, dtype=np.int64)
        windows = torch.from_numpy(self._all[begin_B].astype(np.int64))
        documents = None if self.document_starts is None else torch.from_numpy(self._documents(begin_B))
        return Batch(windows[:, :-1].contiguous(), windows[:, 1:].contiguous(), documents)

    def _documents(self, begin_B: NDArray[np.int64]) -> NDArray[np.int64]:
        assert self.document_starts is not None
        # Documents that begin after a window's first token and up to its last: each raises the number by one from there.
        low_B = np.searchsorted(self.document_starts, begin_B, side="right")
        high_B = np.searchsorted(self.document_starts, begin_B + self.context_length, side="left")
        marks_BT = np.zeros((len(begin_B), self.context_length), np.int64)
        for row, (low, high) in enumerate(zip(low_B, high_B, strict=True)):
            marks_BT[row, self.document_starts[low:high] - begin_B[row]] = 1
        return marks_BT.cumsum(axis=1)

    def batches(self, batch_size: int, max_batches: int | None = None) -> Iterator[Batch]:
        """The ordered windows as batches, the same every time, for validation.

        Every target comes once when the stride is the context length: the tokens after the last whole window make a
        shorter window of their own, the last batch. So batches differ in size: weigh them by ``targets_BT.numel()``.

        Args:
            batch_size: B; the last whole windows may be fewer.
            max_batches: take only so many, their windows spread evenly over the tokens.
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
            tail = Windows(self.tokens[-rest - 1 :], rest)
            if self.document_starts is not None:
                tail.document_starts = self.document_starts - (len(self.tokens) - rest - 1)
            yield tail.gather([0])
