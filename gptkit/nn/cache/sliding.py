"""`SlidingState`: only the tokens of an attention window are kept.

Shapes: B batch, H heads, T new tokens, S tokens in view, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gptkit.core.errors import StateError
from gptkit.nn.cache.state import TokenState, require_length

__all__ = ["SlidingState"]


class SlidingState(TokenState):
    """Tensors that hold the last tokens, as many as a query can see, and some more.

    The buffer holds two windows and slides: memory does not grow with the text, and appending costs a copy of the window
    once per window. A capacity below the window leaves the window without effect.

    Args:
        shapes: for each tensor its (H, D).
        window: how many tokens back a query sees, the current one included.
    """

    def __init__(
        self,
        batch: int,
        capacity: int,
        shapes: Sequence[tuple[int, int]],
        dtype: torch.dtype,
        device: torch.device,
        window: int,
    ) -> None:
        self.declared_window = window
        self._fit(capacity)
        self.buffers = [torch.zeros(batch, h, self.size, d, dtype=dtype, device=device) for h, d in shapes]
        self.length = 0
        """Tokens appended so far."""
        self.used = 0
        """Tokens held in the buffers, which are the last ones appended."""

    def _fit(self, capacity: int) -> None:
        self.capacity = capacity
        self.window = self.declared_window if self.declared_window < capacity else None
        self.size = capacity if self.window is None else min(capacity, 2 * self.window + 16)

    def append(self, *new_BHTD: Tensor) -> tuple[int, tuple[Tensor, ...]]:
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
        keep = self._kept(self.window)
        views = []
        n_stored = min(keep + n_new, self.size - self.window)
        for buffer, new in zip(self.buffers, new_BHTD, strict=True):
            joined = torch.cat((buffer[:, :, self.used - keep : self.used], new.to(buffer.dtype)), dim=2)
            buffer[:, :, :n_stored] = joined[:, :, joined.shape[2] - n_stored :]
            views.append(joined[:, :, max(0, joined.shape[2] - (self.window + n_new - 1)) :])
        self.used = n_stored
        self.length += n_new
        return self.length - views[0].shape[2], tuple(views)

    def has_room(self, n_new: int) -> bool:
        """Whether `reserve` can make room for this many new tokens."""
        held = self.used if self.window is None or self.used + n_new <= self.size else self._kept(self.window)
        return held + n_new <= self.size

    def _kept(self, window: int) -> int:
        """Number of tokens that a move of the window keeps: some more than it, so that the last ones can be discarded."""
        return min(self.used, window + 15)

    def reserve(self, n_new: int) -> None:
        """Make room for new tokens that a compiled step writes at `used`: move the window to the front where needed."""
        if self.used + n_new <= self.size:
            return
        assert self.window is not None
        keep = self._kept(self.window)
        for buffer in self.buffers:
            buffer[:, :, :keep] = buffer[:, :, self.used - keep : self.used].clone()
        self.used = keep

    def advance(self, n_new: int) -> None:
        """Count tokens that a compiled step wrote at `used`."""
        self.used += n_new
        self.length += n_new

    def reorder(self, rows_B: Tensor) -> None:
        self.buffers = [buffer.index_select(0, rows_B) for buffer in self.buffers]

    def join(self, other: SlidingState, length: int, capacity: int) -> None:
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

    def extract(self, row: int, first: int, length: int, capacity: int) -> SlidingState:
        require_length(self.length, length)
        one = self.buffers[0]
        shapes = [(buffer.shape[1], buffer.shape[3]) for buffer in self.buffers]
        copy = SlidingState(1, capacity, shapes, one.dtype, one.device, self.declared_window)
        copy.length = length - first
        copy.used = min(copy.length, self.used, copy.size)
        for target, source in zip(copy.buffers, self.buffers, strict=True):
            target[:, :, : copy.used] = source[row : row + 1, :, self.used - copy.used : self.used]
        return copy

    def can_truncate(self, length: int) -> bool:
        left = self.used - (self.length - length)
        needed = min(length, (self.window or length + 1) - 1)
        return length in (0, self.length) or left >= needed

    def truncate(self, length: int) -> None:
        drop = self.length - length
        if drop <= 0:
            return
        if not self.can_truncate(length):
            raise StateError(
                f"a window of {self.window} tokens has slid: only its last {self.used} tokens are held, "
                f"so {drop} cannot be discarded",
                hint="Truncate by fewer tokens at a time, or start again from the prompt.",
            )
        self.used, self.length = max(self.used - drop, 0), length
