"""`GrowingState`: every token is kept; a call sees a view of those so far.

Shapes: B batch, H heads, T new tokens, S tokens in view, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gptkit.core.errors import StateError
from gptkit.nn.cache.state import TokenState, require_length

__all__ = ["GrowingState"]


class GrowingState(TokenState):
    """Tensors that are filled by a slice per call, preallocated for all of the capacity.

    Args:
        shapes: for each tensor its (H, D).
    """

    def __init__(
        self, batch: int, capacity: int, shapes: Sequence[tuple[int, int]], dtype: torch.dtype, device: torch.device
    ) -> None:
        self.capacity = capacity
        self.buffers = [torch.zeros(batch, h, capacity, d, dtype=dtype, device=device) for h, d in shapes]
        self.length = 0

    def append(self, *new_BHTD: Tensor) -> tuple[int, tuple[Tensor, ...]]:
        begin, end = self.length, self.length + new_BHTD[0].shape[-2]
        if end > self.capacity:
            raise StateError(
                f"the cache holds {self.capacity} tokens and cannot take token {end}",
                hint="Make the cache larger, or truncate it first.",
            )
        views = []
        for buffer, new in zip(self.buffers, new_BHTD, strict=True):
            buffer[:, :, begin:end] = new
            views.append(buffer[:, :, :end])
        self.length = end
        return 0, tuple(views)

    @property
    def used(self) -> int:
        """Entries of the buffers that are filled."""
        return self.length

    def has_room(self, n_new: int) -> bool:
        """Whether `reserve` can make room for this many new tokens."""
        return self.length + n_new <= self.capacity

    def reserve(self, n_new: int) -> None:
        """Make room for new tokens that a compiled step writes at `used`: there is, up to the capacity."""

    def advance(self, n_new: int) -> None:
        """Count tokens that a compiled step wrote at `used`."""
        self.length += n_new

    def reorder(self, rows_B: Tensor) -> None:
        self.buffers = [buffer.index_select(0, rows_B) for buffer in self.buffers]

    def join(self, other: GrowingState, length: int, capacity: int) -> None:
        joined = []
        for one, two in zip(self.buffers, other.buffers, strict=True):
            rows = one.shape[0]
            buffer = one.new_zeros(rows + two.shape[0], one.shape[1], capacity, one.shape[3])
            for target, source, side in ((buffer[:rows], one, self), (buffer[rows:], two, other)):
                target[:, :, length - side.length : length] = source[:, :, : side.length]
            joined.append(buffer)
        self.buffers, self.length, self.capacity = joined, length, capacity

    def extract(self, row: int, first: int, length: int, capacity: int) -> GrowingState:
        require_length(self.length, length)
        one = self.buffers[0]
        shapes = [(buffer.shape[1], buffer.shape[3]) for buffer in self.buffers]
        copy = GrowingState(1, capacity, shapes, one.dtype, one.device)
        copy.length = length - first
        for target, source in zip(copy.buffers, self.buffers, strict=True):
            target[:, :, : copy.length] = source[row : row + 1, :, first : self.length]
        return copy

    def truncate(self, length: int) -> None:
        self.length = min(self.length, length)
