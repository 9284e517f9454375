"""What a layer remembers between two calls of cached decoding.

Shapes: B batch, H heads (1 where there are none), T new tokens, S stored tokens, D features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import StateError

__all__ = ["LayerState", "RecurrentState", "Stateful", "TokenState"]


class LayerState(ABC):
    """The memory of one layer: keys and values, latent vectors, a window, a recurrent state."""

    @abstractmethod
    def reorder(self, rows_B: Tensor) -> None:
        """Make row i what row ``rows_B[i]`` was (beam search; dropping or repeating rows changes B)."""

    @abstractmethod
    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens (speculative rollback).

        Raises:
            StateError: the tokens that would be needed are no longer held.
        """

    @abstractmethod
    def join(self, other: Any, length: int, capacity: int) -> None:
        """Append the rows of `other`, a state of the same layer (continuous batching).

        Args:
            length: both sides are left-padded to this many tokens, so that they end together; at least either's length.
            capacity: tokens that a row can hold afterwards.

        Raises:
            StateError: one of the two has read no token yet.
        """

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Memory that is allocated, in bytes."""


class Stateful:
    """Mixin of modules that keep state when decoding. Their state is ``forward.state(self)``.

    Attributes:
        state_index: position among the model's stateful modules; the model assigns it when it is assembled.
    """

    state_index: int = -1

    def new_state(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        """An empty state for `batch` rows of up to `capacity` tokens each."""
        raise NotImplementedError(f"{type(self).__name__} keeps no state")

    def state_bytes_per_token(self, dtype: torch.dtype) -> float:
        """Memory one more token costs per row, in bytes; 0 for a state that does not grow."""
        return 0.0


class TokenState(LayerState):
    """One or several tensors that grow by a slice a token, preallocated.

    With a `window`, only the last `window` tokens can be attended again, so the buffer holds two windows and slides:
    memory does not grow with the text, and appending costs a copy of the window once a window.

    Args:
        shapes: for each tensor its (H, D).
        window: how many tokens back a query sees, the current one included; None for all.
    """

    def __init__(
        self,
        batch: int,
        capacity: int,
        shapes: Sequence[tuple[int, int]],
        dtype: torch.dtype,
        device: torch.device,
        window: int | None = None,
    ) -> None:
        self.declared_window = window
        self._fit(capacity)
        self.buffers = [torch.zeros(batch, h, self.size, d, dtype=dtype, device=device) for h, d in shapes]
        self.length = 0
        """Tokens appended so far."""
        self.used = 0
        """Tokens held in the buffers, which are the last ones appended."""

    def _fit(self, capacity: int) -> None:
        window = self.declared_window
        self.capacity = capacity
        self.window = window if window is not None and window < capacity else None
        self.size = capacity if self.window is None else min(capacity, 2 * self.window + 16)

    def append(self, *new_BHTD: Tensor) -> tuple[int, tuple[Tensor, ...]]:
        """Add T tokens; return the index of the first token in view, and the views (B, H, S, D), new tokens last.

        Raises:
            StateError: more tokens than the capacity.
        """
        n_new = new_BHTD[0].shape[-2]
        if self.length + n_new > self.capacity:
            raise StateError(
                f"the cache holds {self.capacity} tokens and cannot take token {self.length + n_new}",
                hint="Make the cache larger, or truncate it first.",
            )
        if self.used + n_new > self.size:
            return self._slide(new_BHTD, n_new)
        end = self.used + n_new
        for buffer, new in zip(self.buffers, new_BHTD, strict=True):
            buffer[:, :, self.used : end] = new
        self.used = end
        self.length += n_new
        start = 0
        if self.window is not None:
            # Not more than the new queries can see, so that a single query needs no mask.
            start = max(0, end - (self.window + n_new - 1))
        views = tuple(buffer[:, :, start:end] for buffer in self.buffers)
        return self.length - (end - start), views

    def _slide(self, new_BHTD: tuple[Tensor, ...], n_new: int) -> tuple[int, tuple[Tensor, ...]]:
        assert self.window is not None
        keep = min(self.used, self.window + 15)
        views = []
        n_stored = min(keep + n_new, self.size - self.window)
        for buffer, new in zip(self.buffers, new_BHTD, strict=True):
            joined = torch.cat((buffer[:, :, self.used - keep : self.used], new.to(buffer.dtype)), dim=2)
            buffer[:, :, :n_stored] = joined[:, :, joined.shape[2] - n_stored :]
            views.append(joined[:, :, max(0, joined.shape[2] - (self.window + n_new - 1)) :])
        self.used = n_stored
        self.length += n_new
        return self.length - views[0].shape[2], tuple(views)

    def reorder(self, rows_B: Tensor) -> None:
        self.buffers = [buffer.index_select(0, rows_B) for buffer in self.buffers]

    def join(self, other: TokenState, length: int, capacity: int) -> None:
        self._fit(capacity)
        # A side that has slid holds its last tokens only; the other needs no more of its padding than that.
        held = [length if side.used == side.length else side.used for side in (self, other)]
        used = min(*held, self.size)
        joined = []
        for one, two in zip(self.buffers, other.buffers, strict=True):
            rows = one.shape[0]
            buffer = one.new_zeros(rows + two.shape[0], one.shape[1], self.size, one.shape[3])
            for target, source, side in ((buffer[:rows], one, self), (buffer[rows:], two, other)):
                n_kept = min(used, side.used)
                target[:, :, used - n_kept : used] = source[:, :, side.used - n_kept : side.used]
            joined.append(buffer)
        self.buffers, self.used, self.length = joined, used, length

    def truncate(self, length: int) -> None:
        drop = self.length - length
        if drop < 0:
            raise StateError(f"the cache holds {self.length} tokens, so it cannot be cut to {length}")
        left = self.used - drop
        needed = min(length, (self.window or length + 1) - 1)
        if left < needed:
            raise StateError(
                f"a window of {self.window} tokens has slid on: only its last {self.used} tokens are held, "
                f"so {drop} cannot be taken back",
                hint="Truncate by fewer tokens at a time, or start again from the prompt.",
            )
        self.used, self.length = max(left, 0), length

    @property
    def bytes(self) -> int:
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers)


class RecurrentState(LayerState):
    """Tensors of a fixed size (a recurrence, a convolution's tail). `None` until the first tokens have passed.

    Going back needs copies: call `mark` to keep one at the current length, which `truncate` can return to.
    """

    def __init__(self) -> None:
        self.tensors: tuple[Tensor, ...] | None = None
        self.length = 0
        self._marks: dict[int, tuple[Tensor, ...] | None] = {0: None}

    def update(self, n_new: int, *tensors: Tensor) -> None:
        """Store the tensors as they are after `n_new` more tokens."""
        self.tensors = tensors
        self.length += n_new

    def mark(self) -> None:
        """Keep what is needed to come back to the current length. Earlier marks are dropped."""
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
        if self.tensors is None or other.tensors is None:
            raise StateError("a recurrent state that has read no token cannot be joined", hint="Read the prompt first.")
        self.tensors = tuple(torch.cat(pair) for pair in zip(self.tensors, other.tensors, strict=True))
        self.length = length
        self._marks = {0: None}

    def truncate(self, length: int) -> None:
        if length == self.length:
            return
        if length not in self._marks:
            raise StateError(
                f"a recurrent state cannot be taken back to token {length}, which was not marked",
                hint="Call cache.mark() before the tokens that may have to be undone.",
            )
        kept = self._marks[length]
        self.tensors = None if kept is None else tuple(tensor.clone() for tensor in kept)
        self.length = length

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors or ())
