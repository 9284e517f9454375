"""`TracedState`: tokens in a buffer whose bookkeeping is the host's, while a decode step is traced to one graph.

Shapes: B batch, H heads, C capacity, S keys in view, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import StateError
from gptkit.nn.cache.state import TokenState
from gptkit.nn.cache.view import KeyOffset

__all__ = ["TracedState"]


class TracedState(TokenState):
    """Buffers (B, H, C, D) of which the first S entries are in view; the new tokens are written from `used` on.

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
        n_new = new_BHTD[0].shape[-2]
        indices_T = self._used.view(1)
        if n_new > 1:
            indices_T = indices_T + torch.arange(n_new, device=indices_T.device)
        for buffer, new in zip(self.buffers, new_BHTD, strict=True):
            buffer.index_copy_(2, indices_T, new.to(buffer.dtype))
        return self._first, tuple(buffer.narrow(2, 0, self._n_keys) for buffer in self.buffers)

    def reorder(self, rows_B: Tensor) -> None:
        raise _only_traced()

    def truncate(self, length: int) -> None:
        raise _only_traced()

    def join(self, other: Any, length: int, capacity: int) -> None:
        raise _only_traced()


def _only_traced() -> StateError:
    return StateError("a state that is being traced can only be appended to")
