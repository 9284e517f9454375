"""What the states of a cache are allocated for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gptkit.nn.cache.blocks import BlockState
from gptkit.nn.cache.growing import GrowingState
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.ring import RingState
from gptkit.nn.cache.sliding import SlidingState
from gptkit.nn.cache.state import TokenState
from gptkit.nn.cache.static import StaticState

__all__ = ["Allocation"]


@dataclass(frozen=True)
class Allocation:
    """Sizes, dtype and device of the states of a cache, and whether their shapes are fixed.

    A module's `new_state` calls `tokens`, `blocks` or `recurrent`, and so supports every form of cache without knowing them.

    Attributes:
        batch: rows.
        capacity: tokens that a row can hold.
        dtype: of keys, values and the like.
        device: where the states live.
        offset: for a static cache, the 0-d tensor with the number of tokens held, which all layers share; None for a
            cache that grows.
    """

    batch: int
    capacity: int
    dtype: torch.dtype
    device: torch.device
    offset: Tensor | None = None

    def tokens(self, *shapes: tuple[int, int], window: int | None = None, ordered: bool = True) -> TokenState:
        """A state with an entry per token in each of several tensors.

        Args:
            shapes: (heads, features) of each tensor.
            window: how many tokens back a query sees, the current one included; None for all.
            ordered: the keys in view must be in the order of the text, as terms need that sum over keys. Where they need
                not, a static cache keeps a window in a ring buffer, else it has a place for each token of the capacity.
        """
        if self.offset is not None:
            if window is not None and not ordered and RingState.slots(window) < self.capacity:
                return RingState(self.batch, shapes, self.dtype, self.device, self.offset, window)
            return StaticState(self.batch, self.capacity, shapes, self.dtype, self.device, self.offset)
        if window is not None:
            return SlidingState(self.batch, self.capacity, shapes, self.dtype, self.device, window)
        return GrowingState(self.batch, self.capacity, shapes, self.dtype, self.device)

    def blocks(self, size: int, *widths: int) -> BlockState:
        """A state with an entry for each block of positions.

        Args:
            size: positions of a block.
            widths: features of an entry, for each tensor.
        """
        static = self.offset is not None
        return BlockState(self.batch, self.capacity, size, widths, self.dtype, self.device, static)

    def recurrent(self, *shapes: tuple[tuple[int, ...], torch.dtype]) -> RecurrentState:
        """A state of fixed size, zero at first. In a file written by ``gptkit eject``, its `tensors` are None at first.

        Args:
            shapes: shape (without the batch) and dtype of each tensor.
        """
        tensors = tuple(torch.zeros(self.batch, *shape, dtype=dtype, device=self.device) for shape, dtype in shapes)
        return RecurrentState(*tensors, offset=self.offset)
