"""Decoding cache of a model: the states of all layers and their common length."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy as copy_of

import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.core.errors import StateError
from gptkit.nn.cache.hidden import HiddenVectors
from gptkit.nn.cache.state import TokenState
from gptkit.nn.cache.store import States

__all__ = ["Cache"]


class Cache:
    """Decoding cache of B rows. Created by `GPT.new_cache`, filled by calls of the model.

    Attributes:
        batch: B.
        capacity: maximum number of tokens of a row, including padding.
        left_padding_B: number of padding tokens at the start of each row; None without padding.
        prefix_B: number of tokens at the start of each row that attend one another in both directions; None for none.
        vectors: the state that holds the vectors that the head receives belongs to it; None if they are not kept.
    """

    def __init__(
        self,
        allocate: Callable[[int, int, Tensor | None], States],
        batch: int,
        capacity: int,
        *,
        device: torch.device,
        static: bool = False,
        left_padding_B: Tensor | None = None,
        prefix_B: Tensor | None = None,
        changes: Callable[[int, int], bool] | None = None,
        vectors: HiddenVectors | None = None,
    ) -> None:
        """
        Args:
            allocate: returns empty states for a number of rows, a capacity, and the offset of a static cache (else None).
            static: fixed shapes and a tensor offset.
            changes: whether the results of earlier tokens change when a row grows from `old` to `new` tokens; None: never.
            vectors: its state, which `allocate` includes, holds the vectors that the head receives; None: they are not kept.
        """
        self._static_offset = torch.zeros((), dtype=torch.long, device=device) if static else None
        self.states = allocate(batch, capacity, self._static_offset)
        self.batch = batch
        self.capacity = capacity
        self.left_padding_B = left_padding_B
        self.prefix_B = prefix_B
        self._length = 0
        self.device = device
        self._allocate = allocate
        self._changes = changes
        self.vectors = vectors
        self._ids_BT: Tensor | None = None
        self._computed_at = 0

    @property
    def length(self) -> int:
        """Number of tokens of a row, including padding."""
        return self._length if self._static_offset is None else int(self._static_offset)

    @property
    def is_plain(self) -> bool:
        """Whether each call adds its tokens and changes nothing else, so that a compiled decode step can do so."""
        return self._static_offset is None and self._changes is None and self.prefix_B is None

    @property
    def keeps_hidden(self) -> bool:
        """Whether the vectors that the head receives are kept (`hidden`)."""
        return self.vectors is not None

    def keep_hidden(self, x_BTE: Tensor) -> None:
        """Add the vectors that the head receives for the tokens of a call."""
        self._hidden_state().append(x_BTE[:, None])

    def hidden(self, row: int) -> Tensor:
        """Return the vectors that the head received for the tokens of a row without padding, (T, E); a view.

        Raises:
            StateError: they are not kept.
        """
        state = self._hidden_state()
        padding = 0 if self.left_padding_B is None else int(self.left_padding_B[row])
        return state.buffers[0][row, 0, padding : self.length]

    def _hidden_state(self) -> TokenState:
        if self.vectors is None:
            raise StateError("this cache keeps no hidden vectors", hint="Allocate it with keep_hidden=True.")
        state = self.states.of(self.vectors, 0)
        assert isinstance(state, TokenState)
        return state

    @property
    def offset(self) -> int | Tensor:
        """`length`, as the model takes it: a 0-d tensor for a static cache, whose value is never read on the host."""
        return self._length if self._static_offset is None else self._static_offset

    def set_static_offset(self, offset: Tensor) -> None:
        """Use this 0-d tensor as the number of tokens held by a static cache; its states have the same one."""
        self._static_offset = offset

    def advance(self, n_tokens: int) -> None:
        """Count the tokens of a call, after its last layer."""
        self._set_length(n_tokens, add=True)

    def _set_length(self, length: int, add: bool = False) -> None:
        if self._static_offset is None:
            self._length = self._length + length if add else length
        elif add:
            self._static_offset.add_(length)
        else:
            self._static_offset.fill_(length)

    def begin(self, ids_BT: Tensor) -> Tensor:
        """Return the ids to compute: usually the new ones only.

        If new tokens change the results of earlier ones (positions that depend on the length, a bidirectional prefix that
        arrives in several calls), the cache is emptied and all ids are returned.

        Raises:
            StateError: more tokens than the capacity.
        """
        if self._static_offset is not None and torch.compiler.is_compiling():
            # The length is unavailable on the host inside a graph; the device checks it.
            torch._assert_async(self._static_offset + ids_BT.shape[1] <= self.capacity)
            return ids_BT
        total = self.length + ids_BT.shape[1]
        if total > self.capacity:
            raise StateError(
                f"{total} tokens do not fit into a cache of {self.capacity}",
                hint="Shorten the text, or choose a longer model.context_length.",
            )
        if self._static_offset is not None:
            self._require_whole_prefix(ids_BT.shape[1])
            return ids_BT
        if self._changes is None and self.prefix_B is None:
            return ids_BT
        known = ids_BT if self._ids_BT is None else torch.cat((self._ids_BT[:, : self.length], ids_BT), dim=1)
        self._ids_BT = known
        padding = [0] if self.left_padding_B is None else self.left_padding_B.tolist()
        old, new = self._computed_at, known.shape[1]
        self._computed_at = new
        stale = False
        if self._changes is not None:
            stale = any(self._changes(old - start, new - start) for start in padding)
        if self.prefix_B is not None:
            stale = stale or self.length < self._prefix_end(self.prefix_B)
        if self.length == 0 or not stale:
            return ids_BT
        self.states = self._allocate(self.batch, self.capacity, None)
        self._length = 0
        return known

    def _prefix_end(self, prefix_B: Tensor) -> int:
        """The number of tokens, padding included, that hold the bidirectional prefix of every row."""
        return int((prefix_B if self.left_padding_B is None else prefix_B + self.left_padding_B).max())

    def _require_whole_prefix(self, n_new: int) -> None:
        """A static cache cannot compute a prefix again, so the first call must have all of it."""
        if self.prefix_B is None:
            return
        end, held = self._prefix_end(self.prefix_B), self.length
        if held < end and (held > 0 or n_new < end):
            raise StateError(
                f"a bidirectional prefix of {end} tokens arrives in several calls, which a static cache does not support",
                hint="Pass the whole prefix in the first call, or use a cache without static=True.",
            )

    @property
    def bytes(self) -> int:
        """Memory allocated for all layers, in bytes."""
        return sum(state.bytes for state in self.states)

    def reorder(self, rows: Tensor | list[int]) -> None:
        """Replace row i by row ``rows[i]``; fewer or more rows change the batch."""
        device = self.left_padding_B.device if self.left_padding_B is not None else None
        rows_B = torch.as_tensor(rows, dtype=torch.long, device=device)
        self.states.reorder(rows_B)
        if self.left_padding_B is not None:
            self.left_padding_B = self.left_padding_B[rows_B]
        if self.prefix_B is not None:
            self.prefix_B = self.prefix_B[rows_B]
        if self._ids_BT is not None:
            self._ids_BT = self._ids_BT[rows_B]
        self.batch = len(rows_B)

    def join(self, other: Cache, capacity: int) -> None:
        """Append the rows of another cache of the same model; `other` must not be used afterwards.

        The shorter cache is left-padded, so that all rows end at the same offset.

        Args:
            capacity: maximum number of tokens of a row afterwards, including padding.

        Raises:
            StateError: the capacity is too small, or a recurrent layer of one cache has read no token.
        """
        length = max(self.length, other.length)
        if capacity < length:
            raise StateError(f"a cache of {capacity} tokens cannot hold the {length} of the caches that are joined")
        self.states.join(other.states, length, capacity)
        left_padding = [cache._left_padding() + length - cache.length for cache in (self, other)]
        self.left_padding_B = torch.cat(left_padding) if self.length != other.length or self._padded(other) else None
        if self.prefix_B is not None or other.prefix_B is not None:
            self.prefix_B = torch.cat([cache._prefix() for cache in (self, other)])
        if self._ids_BT is not None and other._ids_BT is not None:
            sides = ((self._ids_BT, self.length), (other._ids_BT, other.length))
            self._ids_BT = torch.cat([F.pad(ids_BT, (length - held, 0)) for ids_BT, held in sides])
        self.batch += other.batch
        self._length = self._computed_at = length
        self.capacity = capacity

    def extract(self, row: int, capacity: int | None = None) -> Cache:
        """Return a copy of one row without its padding (prefix reuse); this cache is unchanged.

        Args:
            row: the row.
            capacity: maximum number of tokens of the copy; those of the row by default.

        Raises:
            StateError: a layer's state cannot be copied, or earlier results may depend on later tokens: a position whose
                effect depends on the length of the text, or a bidirectional prefix.
        """
        if not self.is_plain:
            raise StateError("the results of this cache's tokens may change with later ones, so its rows cannot be copied")
        padding = 0 if self.left_padding_B is None else int(self.left_padding_B[row])
        length = self._length - padding
        if capacity is None:
            capacity = length
        if capacity < length:
            raise StateError(f"a cache of {capacity} tokens cannot hold the {length} of the row that is copied")
        copy = copy_of(self)
        copy.states = self.states.extract(row, padding, self._length, capacity)
        copy.batch, copy.capacity, copy.left_padding_B = 1, capacity, None
        copy._length = copy._computed_at = length
        return copy

    def _padded(self, other: Cache) -> bool:
        return self.left_padding_B is not None or other.left_padding_B is not None

    def _left_padding(self) -> Tensor:
        if self.left_padding_B is not None:
            return self.left_padding_B
        return torch.zeros(self.batch, dtype=torch.long, device=self.device)

    def _prefix(self) -> Tensor:
        if self.prefix_B is not None:
            return self.prefix_B
        return torch.zeros(self.batch, dtype=torch.long, device=self.device)

    def truncate(self, length: int) -> None:
        """Discard all but the first `length` tokens of every row.

        Raises:
            StateError: `length` exceeds the cached tokens, or a layer no longer holds what it needs: a window has discarded
                its oldest tokens, or a recurrent layer was not marked there. The cache is as before; the caller may empty
                it, ``truncate(0)``, which always works, and compute the tokens again.
        """
        if not 0 <= length <= self.length:
            raise StateError(f"the cache holds {self.length} tokens, so it cannot be truncated to {length}")
        for state in self.states:
            if not state.can_truncate(length):
                state.truncate(length)  # which raises, before any other state has changed
        for state in self.states:
            state.truncate(length)
        self._set_length(length)

    def can_truncate(self, length: int) -> bool:
        """Return whether `truncate` to this length is possible."""
        return 0 <= length <= self.length and all(state.can_truncate(length) for state in self.states)

    def steady(self, n_tokens: int) -> int:
        """Return how many of the next `n_tokens` give the same results in one call as one at a time; at least one.

        A position whose effect depends on the length of the text (dynamic scaling) changes the results of earlier tokens.
        """
        if self._changes is None:
            return n_tokens
        first = self.length + 1
        padding = [0] if self.left_padding_B is None else self.left_padding_B.tolist()
        for n_more in range(1, n_tokens):
            if any(self._changes(first - start, first + n_more - start) for start in padding):
                return n_more
        return n_tokens

    def mark(self) -> None:
        """Allow `truncate` to return to this length in recurrent layers too."""
        for state in self.states:
            state.mark()
