"""What generation asks of a model: less than `gptkit.model.GPT` is, so that anything with these methods can generate.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Cache", "LanguageModel", "Output"]


class Cache(Protocol):
    """The decoding cache of a batch."""

    @property
    def length(self) -> int:
        """Tokens held for each row, padding included."""

    @property
    def capacity(self) -> int:
        """Tokens that can be held."""

    def reorder(self, rows_B: Tensor, /) -> None:
        """Make row i what row ``rows_B[i]`` was; the number of rows may change."""

    def join(self, other: Any, capacity: int, /) -> None:
        """Append the rows of `other`, the shorter of the two left-padded so that both end together.

        Args:
            capacity: tokens that a row can hold afterwards, padding included.
        """


class Output(Protocol):
    """What a call of the model returns."""

    @property
    def logits(self) -> Tensor | None:
        """(B, T, V), or (B, 1, V) where only the last token's were asked for."""


class LanguageModel(Protocol):
    """A model that generation can drive."""

    training: bool

    @property
    def context_length(self) -> int:
        """The longest sequence, in tokens, that the model is made for."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""

    @property
    def device(self) -> torch.device:
        """Where token ids belong."""

    def train(self, mode: bool = True) -> Any:
        """Switch dropout and the like on or off."""

    def new_cache(self, batch: int, capacity: int | None = None, left_padding_B: Tensor | None = None) -> Any:
        """An empty `Cache`; ``left_padding_B`` says how many tokens at the start of each row will be padding."""

    def __call__(self, ids_BT: Tensor, /, *, cache: Any = None, last_only: bool = False) -> Any:
        """An `Output` for the tokens, which continue those in the cache."""
