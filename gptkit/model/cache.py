"""The model's memory while it writes: one state a layer, behind one length."""

from __future__ import annotations

import torch
from torch import Tensor

from gptkit.errors import StateError
from gptkit.kinds.state import LayerState, RecurrentState

__all__ = ["Cache"]


class Cache:
    """What cached decoding remembers of B rows. Made by `GPT.new_cache`, filled by calls of the model.

    Attributes:
        capacity: tokens a row can hold, padding included.
        length: tokens a row holds.
        starts_B: padding tokens at the start of each row; None where there is none.
    """

    def __init__(self, states: list[LayerState], capacity: int, starts_B: Tensor | None) -> None:
        self.states = states
        self.capacity = capacity
        self.starts_B = starts_B
        self.length = 0

    @property
    def bytes(self) -> int:
        """Memory allocated for all layers, in bytes."""
        return sum(state.bytes for state in self.states)

    def reorder(self, rows: Tensor | list[int]) -> None:
        """Make row i what row ``rows[i]`` was; fewer or more rows change the batch."""
        device = self.starts_B.device if self.starts_B is not None else None
        rows_B = torch.as_tensor(rows, dtype=torch.long, device=device)
        for state in self.states:
            state.reorder(rows_B)
        if self.starts_B is not None:
            self.starts_B = self.starts_B[rows_B]

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens of every row.

        Raises:
            StateError: longer than it is, or a layer no longer holds what it would need.
        """
        if not 0 <= length <= self.length:
            raise StateError(f"the cache holds {self.length} tokens, so it cannot be cut to {length}")
        for state in self.states:
            state.truncate(length)
        self.length = length

    def mark(self) -> None:
        """Let `truncate` come back to this length in recurrent layers too."""
        for state in self.states:
            if isinstance(state, RecurrentState):
                state.mark()
