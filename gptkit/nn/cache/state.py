"""The protocol of decoding states: what a layer keeps between two calls of cached decoding.

Shapes: B batch, H heads (1 where there are none), T new tokens, S tokens in view, D features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gptkit.core.errors import StateError
from gptkit.nn.cache.view import KeyOffset

if TYPE_CHECKING:
    from gptkit.nn.cache.allocation import Allocation

__all__ = ["LayerState", "Stateful", "TokenState", "require_length"]


class LayerState(ABC):
    """The state of one call site: keys and values, latent vectors, a window of either, or a recurrent state."""

    @abstractmethod
    def reorder(self, rows_B: Tensor) -> None:
        """Replace row i by row ``rows_B[i]`` (beam search; dropping or repeating rows changes B)."""

    @abstractmethod
    def truncate(self, length: int) -> None:
        """Discard all but the first `length` tokens (speculative rollback). A state with fewer tokens keeps them.

        Raises:
            StateError: `can_truncate` is false; nothing has changed.
        """

    def can_truncate(self, length: int) -> bool:
        """Whether the state still has all that it needs after the first `length` tokens. By default it always has."""
        return True

    @abstractmethod
    def join(self, other: Any, length: int, capacity: int) -> None:
        """Append the rows of `other`, a state of the same layer (continuous batching).

        Args:
            length: both sides are left-padded to this many tokens, so that they end together; at least either's length.
            capacity: tokens that a row can hold afterwards.

        Raises:
            StateError: the state cannot take rows, or one of the two has read no token yet.
        """

    def extract(self, row: int, first: int, length: int, capacity: int) -> LayerState:
        """Return a copy of one row alone (prefix reuse); this state is unchanged. By default a state cannot be copied.

        Args:
            row: the row.
            first: number of tokens at its start that are padding, and are discarded.
            length: number of tokens that the cache holds, padding included. A state of another number cannot be copied.
            capacity: tokens that the copy can hold; at least those of the row.

        Raises:
            StateError: the state cannot be copied.
        """
        raise StateError(f"{type(self).__name__} does not support copies of single rows")

    def mark(self) -> None:
        """Keep what `truncate` needs to return to the current length. By default nothing: stored tokens suffice."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Memory that is allocated, in bytes."""


class TokenState(LayerState):
    """One or several tensors with an entry per token. `Allocation.tokens` chooses the implementation.

    Attributes:
        buffers: the preallocated tensors, each (B, H, …, D).
    """

    buffers: list[Tensor]

    @abstractmethod
    def append(self, *new_BHTD: Tensor) -> tuple[KeyOffset, tuple[Tensor, ...]]:
        """Add T tokens.

        Returns:
            Where the keys in view are, to be passed on as it is, and the views (B, H, S, D). The new tokens are the last in
            view, except in a static cache, whose views have fixed shapes: the mask excludes what is not filled yet.

        Raises:
            StateError: more tokens than the capacity.
        """

    @property
    def bytes(self) -> int:
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers)


class Stateful:
    """Mixin of modules that keep a state when decoding: ``forward.state(self)``, asked for once per call of the module.

    Attributes:
        state_index: position among the model's stateful modules; the model assigns it when it is assembled.
    """

    state_index: int = -1

    def new_state(self, allocation: Allocation) -> LayerState | None:
        """An empty state; None for a module that keeps none (one that reads another layer's keys and values, say)."""
        raise NotImplementedError(f"{type(self).__name__} defines no state")

    def state_bytes_per_token(self, dtype: torch.dtype) -> float:
        """Memory one more token costs per row, in bytes; 0 for a state that does not grow."""
        return 0.0


def require_length(n_held: int, length: int) -> None:
    """Check that a state whose row is copied holds all tokens of the cache.

    Raises:
        StateError: it does not.
    """
    if n_held != length:
        raise StateError(f"a state of {n_held} tokens in a cache of {length} cannot be copied by rows")
