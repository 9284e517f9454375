"""`BlockState`: an entry for each block of consecutive positions.

Shapes: B batch, N new entries, S entries in view, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gptkit.core.errors import StateError
from gptkit.nn.cache.state import LayerState

__all__ = ["BlockState"]

SPARE = 2
"""Entries beyond the capacity's: of the block that is not full, and of one after it that a call may write too."""


class BlockState(LayerState):
    """Tensors with an entry for each block of positions, written in place at the index of the block.

    Blocks count from the first real token of a row, so an entry does not depend on left padding. A block that is not full
    may be written again; what a call writes beyond the tokens held is overwritten before it is needed, so that a truncated
    state has nothing to discard. Which entries a query may see is up to the caller.

    Args:
        capacity: tokens that a row can hold.
        size: positions of a block.
        widths: D of each tensor.
        static: rows are fixed, and `reorder` writes in place.
    """

    def __init__(
        self,
        batch: int,
        capacity: int,
        size: int,
        widths: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        static: bool = False,
    ) -> None:
        self.size, self.static = size, static
        slots = capacity // size + SPARE
        self.buffers = [torch.zeros(batch, slots, width, dtype=dtype, device=device) for width in widths]

    def write(self, blocks_BN: Tensor, *new_BND: Tensor) -> None:
        """Store the entries of blocks.

        Args:
            blocks_BN: the index of each block; those of a row differ.
            new_BND: the entries, for each tensor.
        """
        for buffer, new in zip(self.buffers, new_BND, strict=True):
            buffer.scatter_(1, blocks_BN[..., None].expand_as(new), new.to(buffer.dtype))

    def view(self, n_entries: int | None) -> tuple[Tensor, ...]:
        """Return the first entries of all rows, (B, S, D); all without a number."""
        return tuple(buffer[:, :n_entries] for buffer in self.buffers)

    def reserve(self, n_new: int) -> None:
        """Nothing to do: there is an entry for each block of the capacity."""

    def advance(self, n_new: int) -> None:
        """Nothing to do: which entries are seen follows from the positions."""

    def with_buffers(self, buffers: Sequence[Tensor]) -> BlockState:
        """Return a state of the same form that holds these tensors."""
        first = buffers[0]
        result = BlockState(first.shape[0], 0, self.size, [], first.dtype, first.device, self.static)
        result.buffers = list(buffers)
        return result

    def reorder(self, rows_B: Tensor) -> None:
        for index, buffer in enumerate(self.buffers):
            chosen = buffer.index_select(0, rows_B)
            same = self.static and chosen.shape == buffer.shape
            self.buffers[index] = buffer.copy_(chosen) if same else chosen

    def truncate(self, length: int) -> None:
        """Nothing to do: entries of later blocks are not seen, and are overwritten."""

    def join(self, other: BlockState, length: int, capacity: int) -> None:
        if self.static:
            raise StateError("a static cache has a fixed number of rows", hint="Use a cache without static=True.")
        pairs = zip(self.buffers, other.buffers, strict=True)
        self.buffers = [torch.cat([self._resized(each, capacity) for each in pair]) for pair in pairs]

    def extract(self, row: int, first: int, length: int, capacity: int) -> BlockState:
        if self.static:
            raise StateError("a row of a static cache cannot be copied", hint="Use a cache without static=True.")
        one = self.buffers[0]
        copy = BlockState(1, capacity, self.size, [], one.dtype, one.device)
        copy.buffers = [self._resized(buffer[row : row + 1], capacity) for buffer in self.buffers]
        return copy

    def _resized(self, buffer: Tensor, capacity: int) -> Tensor:
        result = buffer.new_zeros(buffer.shape[0], capacity // self.size + SPARE, buffer.shape[2])
        kept = min(result.shape[1], buffer.shape[1])
        result[:, :kept] = buffer[:, :kept]
        return result

    @property
    def bytes(self) -> int:
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers)
