"""The model's memory while it writes: one state a layer, behind one length."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gptkit.core.errors import StateError
from gptkit.nn.cache.state import LayerState, RecurrentState

__all__ = ["Cache"]


class Cache:
    """What cached decoding remembers of B rows. Made by `GPT.new_cache`, filled by calls of the model.

    Attributes:
        batch: B.
        capacity: tokens a row can hold, padding included.
        length: tokens a row holds.
        starts_B: padding tokens at the start of each row; None where there is none.
    """

    def __init__(
        self,
        states: list[LayerState],
        batch: int,
        capacity: int,
        starts_B: Tensor | None,
        renew: Callable[[int], list[LayerState]],
    ) -> None:
        self.states = states
        self.batch = batch
        self.capacity = capacity
        self.starts_B = starts_B
        self.length = 0
        self._renew = renew
        self._ids_BT: Tensor | None = None
        self._computed_at = 0

    def begin(self, ids_BT: Tensor, changes: Callable[[int, int], bool]) -> Tensor:
        """The ids to run so that all that is cached fits the new length: usually just the new ones.

        Where positions depend on the length of the text and the new tokens change what the earlier ones gave, the cache
        is emptied and all ids are to be run again.

        Args:
            changes: whether lengths `old` and `new` give different results.
        """
        known = ids_BT if self._ids_BT is None else torch.cat((self._ids_BT[:, : self.length], ids_BT), dim=1)
        self._ids_BT = known
        padding = [0] if self.starts_B is None else self.starts_B.tolist()
        old, new = self._computed_at, known.shape[1]
        stale = self.length > 0 and any(changes(old - start, new - start) for start in padding)
        self._computed_at = new
        if not stale:
            return ids_BT
        self.states, self.length = self._renew(self.batch), 0
        return known

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
        if self._ids_BT is not None:
            self._ids_BT = self._ids_BT[rows_B]
        self.batch = len(rows_B)

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
