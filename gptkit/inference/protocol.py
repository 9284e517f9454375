"""Interface that generation requires of a model: a subset of `gptkit.model.GPT`, so that other models can generate too.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Cache", "ExtractableCache", "LanguageModel", "Output", "TruncatableCache", "VerifiableCache"]


class Cache(Protocol):
    """The decoding cache of a batch."""

    @property
    def length(self) -> int:
        """Number of tokens held for each row, including padding."""

    @property
    def capacity(self) -> int:
        """Maximum number of tokens for each row."""

    def reorder(self, rows_B: Tensor, /) -> None:
        """Replace row i by the previous row ``rows_B[i]``; the number of rows may change."""

    def join(self, other: Any, capacity: int, /) -> None:
        """Append the rows of `other`; the shorter cache is left-padded so that both end at the same offset.

        Args:
            other: a cache of the same model.
            capacity: maximum number of tokens for each row afterwards, including padding.
        """


class TruncatableCache(Cache, Protocol):
    """A decoding cache that can return to fewer tokens."""

    def truncate(self, length: int, /) -> None:
        """Discard all but the first `length` tokens of every row.

        Raises:
            StateError: a layer no longer holds what it needs.
        """


class ExtractableCache(TruncatableCache, Protocol):
    """A decoding cache whose rows can be copied, to be continued by other texts that begin with the same tokens."""

    @property
    def bytes(self) -> int:
        """Allocated memory."""

    def can_truncate(self, length: int, /) -> bool:
        """Return whether `truncate` to this length is possible."""

    def extract(self, row: int, capacity: int | None = None, /) -> Any:
        """Return a copy of one row without its padding.

        Raises:
            StateError: the row cannot be copied.
        """


class VerifiableCache(TruncatableCache, Protocol):
    """A decoding cache for speculative decoding."""

    def can_truncate(self, length: int, /) -> bool:
        """Return whether `truncate` to this length is possible."""

    def mark(self) -> None:
        """Allow `truncate` to return to this length in recurrent layers too."""

    def steady(self, n_tokens: int, /) -> int:
        """Return how many of the next `n_tokens` give the same results in one call as one at a time; at least one."""


class Output(Protocol):
    """Result of a forward pass."""

    @property
    def logits(self) -> Tensor | None:
        """Logits, (B, T, V), or (B, 1, V) with `last_only`."""


class LanguageModel(Protocol):
    """Interface of a model that can generate."""

    training: bool

    @property
    def context_length(self) -> int:
        """Maximum sequence length in tokens."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""

    @property
    def device(self) -> torch.device:
        """Device of token ids."""

    def train(self, mode: bool = True) -> Any:
        """Set training or evaluation mode, as `nn.Module.train` does."""

    def new_cache(self, batch: int, capacity: int | None = None, left_padding_B: Tensor | None = None) -> Any:
        """Return an empty `Cache`; ``left_padding_B`` is the number of padding tokens at the start of each row."""

    def __call__(self, ids_BT: Tensor, /, *, cache: Any = None, last_only: bool = False) -> Any:
        """Return an `Output` for the tokens, which continue those in the cache."""
