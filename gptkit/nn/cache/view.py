"""Where the keys in view of an attention are in their row."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["KeyOffset", "Ring"]


class Ring(NamedTuple):
    """The keys in view of a ring buffer, whose slots are not in the order of the text.

    A token with the index i is in the slot i modulo `size`. A single new token is written before it is attended, so the keys
    in view are the slots. Several new tokens may be more than the slots, so the keys in view are the slots as they were
    before the call, and then the new tokens.

    Attributes:
        held: 0-d tensor, the number of tokens before this call.
        size: slots.
        n_new: tokens of this call.
    """

    held: Tensor
    size: int
    n_new: int

    def indices(self) -> Tensor:
        """The index of each key in view, (S,); negative for a slot that holds none."""
        slots = torch.arange(self.size, device=self.held.device)
        newest = self.held if self.n_new == 1 else self.held - 1
        stored = newest - (newest - slots) % self.size
        return stored if self.n_new == 1 else torch.cat((stored, self._new()))

    def queries(self) -> Tensor:
        """Where this call's tokens are among the keys in view, (T,)."""
        if self.n_new == 1:
            return self._new() % self.size
        return torch.arange(self.size, self.size + self.n_new, device=self.held.device)

    def _new(self) -> Tensor:
        return torch.arange(self.n_new, device=self.held.device) + self.held


KeyOffset = int | Tensor | Ring
"""Where the keys in view are: the index of the first one, an int or (where shapes are static) a 0-d tensor; or a `Ring`."""
