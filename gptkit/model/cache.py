"""The model's memory while it writes: one state a layer, behind one length."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
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
        renew: Callable[[int, int], list[LayerState]],
        device: torch.device | str = "cpu",
    ) -> None:
        self.states = states
        self.batch = batch
        self.capacity = capacity
        self.starts_B = starts_B
        self.length = 0
        self.device = torch.device(device)
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
        self.states, self.length = self._renew(self.batch, self.capacity), 0
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

    def join(self, other: Cache, capacity: int) -> None:
        """Append the rows of another cache of the same model; `other` must not be used afterwards.

        The shorter of the two is left-padded, so that all rows end together.

        Args:
            capacity: tokens a row can hold afterwards, padding included.

        Raises:
            StateError: the capacity is too small, or a recurrent layer of one cache has read no token.
        """
        length = max(self.length, other.length)
        if capacity < length:
            raise StateError(f"a cache of {capacity} tokens cannot hold the {length} of the caches that are joined")
        for own, new in zip(self.states, other.states, strict=True):
            own.join(new, length, capacity)
        left_padding = [cache._left_padding() + length - cache.length for cache in (self, other)]
        self.starts_B = torch.cat(left_padding) if self.length != other.length or self._padded(other) else None
        if self._ids_BT is not None and other._ids_BT is not None:
            sides = ((self._ids_BT, self.length), (other._ids_BT, other.length))
            self._ids_BT = torch.cat([F.pad(ids_BT, (length - held, 0)) for ids_BT, held in sides])
        self.batch += other.batch
        self.length = self._computed_at = length
        self.capacity = capacity

    def _padded(self, other: Cache) -> bool:
        return self.starts_B is not None or other.starts_B is not None

    def _left_padding(self) -> Tensor:
        if self.starts_B is not None:
            return self.starts_B
        return torch.zeros(self.batch, dtype=torch.long, device=self.device)

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
