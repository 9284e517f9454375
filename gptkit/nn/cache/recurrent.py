"""`RecurrentState`: tensors whose size does not depend on the number of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from gptkit.core.errors import StateError
from gptkit.nn.cache.state import LayerState, require_length

__all__ = ["RecurrentState"]


class RecurrentState(LayerState):
    """Tensors of a fixed size: the matrix of a recurrence, the last inputs of a convolution.

    Going back needs copies: `mark` keeps one at the current length, which `truncate` can return to.

    Args:
        tensors: the tensors before the first token, zeros; without any, `tensors` is None until the first `update`.
        offset: for a static cache, the 0-d tensor with the number of tokens held; the tensors are then written in place.
    """

    def __init__(self, *tensors: Tensor, offset: Tensor | None = None) -> None:
        self.tensors: tuple[Tensor, ...] | None = tensors or None
        self._offset = offset
        self._length = 0
        self._marks: dict[int, tuple[Tensor, ...] | None] = {0: None}

    @property
    def length(self) -> int:
        """Tokens that the state has read."""
        return self._length if self._offset is None else int(self._offset)

    def update(self, n_new: int, *tensors: Tensor) -> None:
        """Store the tensors as they are after `n_new` more tokens."""
        if self._offset is None:
            self.tensors = tensors
            self._length += n_new
        else:
            assert self.tensors is not None
            for kept, new in zip(self.tensors, tensors, strict=True):
                kept.copy_(new)

    def reserve(self, n_new: int) -> None:
        """Nothing: the size does not depend on the number of tokens."""

    def advance(self, n_new: int) -> None:
        """Count tokens after which a compiled step wrote the tensors in place."""
        self._length += n_new

    def mark(self) -> None:
        """Keep what is needed to return to the current length. Earlier marks are dropped."""
        kept = None if self.tensors is None else tuple(tensor.clone() for tensor in self.tensors)
        self._marks = {0: None, self.length: kept}

    def reorder(self, rows_B: Tensor) -> None:
        if self.tensors is not None:
            self.tensors = tuple(tensor.index_select(0, rows_B) for tensor in self.tensors)
        self._marks = {
            length: None if kept is None else tuple(tensor.index_select(0, rows_B) for tensor in kept)
            for length, kept in self._marks.items()
        }

    def join(self, other: RecurrentState, length: int, capacity: int) -> None:
        if self._offset is not None:
            raise StateError("a static cache has a fixed number of rows", hint="Use a cache without static=True.")
        if self.tensors is None or other.tensors is None:
            raise StateError("a recurrent state that has read no token cannot be joined", hint="Read the prompt first.")
        self.tensors = tuple(torch.cat(pair) for pair in zip(self.tensors, other.tensors, strict=True))
        self._length = length
        self._marks = {0: None}

    def extract(self, row: int, first: int, length: int, capacity: int) -> RecurrentState:
        require_length(self.length, length)
        if self._offset is not None:
            raise StateError("a row of a static cache cannot be copied", hint="Use a cache without static=True.")
        if self.tensors is None:
            raise StateError("a recurrent state that has read no token cannot be copied", hint="Read the prompt first.")
        copy = RecurrentState(*(tensor[row : row + 1].clone() for tensor in self.tensors))
        copy._length = length - first
        return copy

    def can_truncate(self, length: int) -> bool:
        return length >= self.length or length in self._marks

    def truncate(self, length: int) -> None:
        if length >= self.length:
            return
        if not self.can_truncate(length):
            raise StateError(
                f"a recurrent state cannot return to token {length}, which was not marked",
                hint="Call cache.mark() before the tokens that may have to be undone.",
            )
        self._restore(self._marks[length])
        self._length = length

    def _restore(self, kept: tuple[Tensor, ...] | None) -> None:
        if self.tensors is None:
            return
        if kept is None:
            kept = tuple(torch.zeros_like(tensor) for tensor in self.tensors)
        if self._offset is None:
            self.tensors = tuple(tensor.clone() for tensor in kept)
        else:
            for tensor, old in zip(self.tensors, kept, strict=True):
                tensor.copy_(old)

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors or ())
