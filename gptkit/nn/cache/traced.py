"""`TracedState`: tokens in a buffer whose bookkeeping is the host's, while a decode step is traced to one graph.

Shapes: B batch, H heads, C capacity, S keys in view, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gptkit.nn.cache.state import TokenState
from gptkit.nn.cache.view import KeyOffset

__all__ = ["TracedState"]


class TracedState(TokenState):
    """Buffers (B, H, C, D) of which the first S entries are in view; one new token is written at `used`.

    C and S are symbols in the graph, so one graph serves every capacity and length. The number of entries in view exceeds
    that of the tokens held; masks exclude the rest.

    Args:
        buffers: the tensors.
        n_keys: S.
        used: 0-d tensor, the number of entries that are filled.
        first: index in its row of the token in the first entry: 0, or a 0-d tensor for a window that has slid.
    """

    def __init__(self, buffers: Sequence[Tensor], n_keys: int, used: Tensor, first: int | Tensor) -> None:
        self.buffers = list(buffers)
        self._n_keys, self._used, self._first = n_keys, used, first

    def append(self, *new_BHTD: Tensor) -> tuple[KeyOffset, tuple[Tensor, ...]]:
        for buffer, new in zip(self.buffers, new_BHTD, strict=True):
            buffer.index_copy_(2, self._used.view(1), new.to(buffer.dtype))
        return self._first, tuple(buffer.narrow(2, 0, self._n_keys) for buffer in self.buffers)

    def reorder(self, rows_B: Tensor) -> None:
        raise NotImplementedError("only calls of the model are traced")

    def truncate(self, length: int) -> None:
        raise NotImplementedError("only calls of the model are traced")

    def join(self, other: Any, length: int, capacity: int) -> None:
        raise NotImplementedError("only calls of the model are traced")
