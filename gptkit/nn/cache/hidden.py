"""`HiddenVectors`: the vectors of all tokens as a state of the cache."""

from __future__ import annotations

import torch

from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.state import Stateful, TokenState

__all__ = ["HiddenVectors"]


class HiddenVectors(Stateful):
    """State of a model that keeps the vector of every token: truncated, reordered, joined and copied as layers' states are.

    Args:
        width: E, the size of a vector.
        state_index: index after those of the model's stateful modules.
    """

    def __init__(self, width: int, state_index: int) -> None:
        self.width = width
        self.state_index = state_index

    def new_state(self, allocation: Allocation) -> TokenState:
        return allocation.tokens((1, self.width))

    def state_bytes_per_token(self, dtype: torch.dtype) -> float:
        return self.width * dtype.itemsize
