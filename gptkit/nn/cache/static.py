"""`StaticState`: fixed shapes and a tensor offset, for compiled decoding and CUDA graphs.

Shapes: B batch, H heads, T new tokens, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gptkit.core.errors import StateError
from gptkit.nn.cache.state import TokenState
from gptkit.nn.cache.view import KeyOffset

__all__ = ["StaticState"]


class StaticState(TokenState):
    """Tensors of the whole capacity that are written in place at the cache's offset and always seen whole.

    No shape and no Python number changes from call to call, so a compiled decode step is one graph for all tokens. Attention
    masks exclude what is not filled yet, and windows.

    Args:
        shapes: for each tensor its (H, D).
        offset: 0-d tensor with the number of tokens held; the cache advances it after each call of the model.
    """

    def __init__(
        self,
        batch: int,
        capacity: int,
        shapes: Sequence[tuple[int, int]],
        dtype: torch.dtype,
        device: torch.device,
        offset: Tensor,
    ) -> None:
        self.buffers = [torch.zeros(batch, h, capacity, d, dtype=dtype, device=device) for h, d in shapes]
        self.offset = offset

    def append(self, *new_BHTD: Tensor) -> tuple[KeyOffset, tuple[Tensor, ...]]:
        indices_T = torch.arange(new_BHTD[0].shape[-2], device=self.offset.device) + self.offset
        for buffer, new in zip(self.buffers, new_BHTD, strict=True):
            buffer.index_copy_(2, indices_T, new.to(buffer.dtype))
        return 0, tuple(self.buffers)

    def reorder(self, rows_B: Tensor) -> None:
        for index, buffer in enumerate(self.buffers):
            chosen = buffer.index_select(0, rows_B)
            # In place where the batch stays the same: a CUDA graph reads the memory that it was captured with.
            self.buffers[index] = buffer.copy_(chosen) if chosen.shape == buffer.shape else chosen

    def join(self, other: StaticState, length: int, capacity: int) -> None:
        raise StateError("a static cache has a fixed number of rows", hint="Use a cache without static=True.")

    def truncate(self, length: int) -> None:
        """Nothing to do: the cache sets the offset back, and what lies behind it is masked and overwritten."""
