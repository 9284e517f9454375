"""Batch of texts that are decoded together: cache, padding, and handling of a full context.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from gptkit.inference.predicting import CachedText
from gptkit.inference.prefixes import PrefixCache
from gptkit.inference.protocol import Cache, LanguageModel, VerifiableCache

__all__ = ["Batch"]


class Batch:
    """Batch of texts and their cache; every token is processed once.

    Texts of different lengths are left-padded. When a text fills the context, its first half is discarded and the rest is
    processed again (`slide`), which is necessary once per half context, not once per token. The tokens that a row attends
    to depend on its own length only, not on the other rows.

    Args:
        model: the model.
        histories: the token ids of each text, at least one each. The caller appends the generated ones.
        room: maximum number of tokens to generate.
        chunk: maximum number of tokens of each text per forward pass of `read`; unlimited by default.
        keep_hidden: let the cache keep the vectors that the head receives, for `cached_text`.
    """

    def __init__(
        self,
        model: LanguageModel,
        histories: list[list[int]],
        room: int,
        chunk: int | None = None,
        *,
        keep_hidden: bool = False,
    ) -> None:
        self._model = model
        self._room = room
        self._chunk = chunk
        self._cache_options: dict[str, Any] = {"keep_hidden": True} if keep_hidden else {}
        self._cache: Cache | None = None
        self._stale = False
        self._unread_BT: Tensor | None = None
        self.histories = histories
        self.limit = model.context_length
        self._starts = [max(0, len(history) - self.limit) for history in histories]

    @property
    def full(self) -> bool:
        """Whether the next step processes the texts again because the cache cannot hold another token."""
        return self._stale or (self._cache is not None and self._cache.length >= self._cache.capacity)

    def overflows(self, row: int) -> bool:
        """Return whether a row's text, including the new token, is longer than the context."""
        return len(self.histories[row]) - self._starts[row] > self.limit

    def read(self) -> Tensor:
        """Process the texts from their first visible token; return the logits after their last tokens, (B, V) fp32."""
        self.begin()
        while (logits_BV := self.read_part(self._chunk)) is None:
            pass
        return logits_BV

    def resume(self, cache: Cache) -> None:
        """As `begin`, with the cache of the first tokens of the only text; `read_part` processes the others."""
        self._cache, self._stale = cache, False
        self._unread_BT = torch.tensor([self.histories[0][cache.length :]], device=self._model.device)

    def begin(self) -> None:
        """Allocate the cache of the texts from their first visible token; `read_part` processes them."""
        texts = [history[start:] for history, start in zip(self.histories, self._starts, strict=True)]
        longest = max(len(text) for text in texts)
        padding = [longest - len(text) for text in texts]
        device = self._model.device
        ids_BT = torch.tensor([[0] * pad + text for pad, text in zip(padding, texts, strict=True)], device=device)
        left_padding_B = torch.tensor(padding, device=device) if any(padding) else None
        capacity = min(self.limit, longest + self._room)
        self._cache, self._stale = None, False  # free the old one first
        self._cache = self._model.new_cache(
            len(texts), capacity=capacity, left_padding_B=left_padding_B, **self._cache_options
        )
        self._unread_BT = ids_BT

    @property
    def n_unread(self) -> int:
        """Number of tokens of each text, padding included, that were not processed since `begin`."""
        return 0 if self._unread_BT is None else self._unread_BT.shape[1]

    def read_part(self, n_tokens: int | None) -> Tensor | None:
        """Process the next tokens of each text after `begin`.

        Args:
            n_tokens: maximum number of tokens of each text; None for all.

        Returns:
            The logits after the texts, (B, V) fp32; None while tokens are left.
        """
        assert self._unread_BT is not None
        part_BT, rest_BT = self._unread_BT[:, :n_tokens], self._unread_BT[:, n_tokens or self.n_unread :]
        logits_BV = self._logits(part_BT)
        self._unread_BT = rest_BT if rest_BT.shape[1] else None
        return logits_BV if self._unread_BT is None else None

    def step(self, chosen_B: Tensor) -> Tensor:
        """Process the tokens that were appended to the histories; return the logits after them, (B, V) fp32."""
        if self.full:
            return self.slide()
        return self._logits(chosen_B[:, None])

    def slide(self) -> Tensor:
        """As `step`, for a full cache: discard the first half of texts that fill the context, and process the rest again."""
        keep = max(1, self.limit // 2)
        for row, history in enumerate(self.histories):
            if self.overflows(row):
                self._starts[row] = len(history) - keep
        return self.read()

    def reorder(self, rows: Sequence[int]) -> None:
        """Replace row i by the previous row ``rows[i]``; the number of rows may change."""
        self.histories = [self.histories[row] for row in rows]
        self._starts = [self._starts[row] for row in rows]
        if self.full:
            return  # the next step allocates a new cache
        if self._unread_BT is not None and self._cache is not None and self._cache.length == 0:
            self.begin()  # nothing was processed, and less padding may be necessary
            return
        if self._unread_BT is not None:
            self._unread_BT = self._unread_BT[rows]
        if self._cache is not None:
            self._cache.reorder(torch.tensor(rows, device=self._model.device))

    def join(self, other: Batch) -> None:
        """Append the rows of another batch after its prefill; `other` must not be used afterwards."""
        self.histories = [*self.histories, *other.histories]
        self._starts = [*self._starts, *other._starts]
        self._room = max(self._room, other._room)
        if self.full or other.full or self._cache is None or other._cache is None:
            self._stale = True
            return
        columns = max(self._cache.length, other._cache.length)
        self._cache.join(other._cache, min(self.limit, columns + self._room))

    def keep(self, row: int, prefixes: PrefixCache) -> None:
        """Add the cache of a text that was read as a whole to the known prefixes."""
        if self._cache is not None and self._starts[row] == 0:
            prefixes.add(self.histories[row], self._cache, row)

    def cached_text(self, row: int) -> CachedText | None:
        """Return the part of a text that the cache holds, with its vectors; None unless they are kept."""
        if not self._cache_options:
            return None
        cache: Any = self._cache
        return CachedText(self._starts[row], cache.hidden(row))

    def verifiable(self, n_tokens: int) -> int:
        """Return how many of the next `n_tokens` of a row `verify` can process at once; at least one, unless `full`."""
        cache = self._verifiable_cache()
        return cache.steady(min(n_tokens, cache.capacity - cache.length))

    def verify(self, ids_BT: Tensor) -> Tensor:
        """Process several tokens of every row, which `discard` can undo; return the logits after each, (B, T, V) fp32."""
        cache = self._verifiable_cache()
        cache.mark()
        logits_BTV: Tensor = self._model(ids_BT, cache=cache).logits
        return logits_BTV[:, -ids_BT.shape[1] :].float()

    def discard(self, n_tokens: int, n_verified: int) -> int:
        """Discard the last tokens of every row, after `verify`; return how many were discarded.

        Args:
            n_tokens: how many to discard.
            n_verified: number of tokens of the latest `verify`. A recurrent state can discard all of these only. If a layer
                cannot return even there, the next step processes the texts again.
        """
        cache = self._verifiable_cache()
        for n_discarded in (n_tokens, n_verified):
            if cache.can_truncate(cache.length - n_discarded):
                cache.truncate(cache.length - n_discarded)
                return n_discarded
        self._stale = True
        return n_verified

    def _verifiable_cache(self) -> VerifiableCache:
        assert self._cache is not None
        return cast("VerifiableCache", self._cache)

    def _logits(self, ids_BT: Tensor) -> Tensor:
        logits_B1V: Tensor = self._model(ids_BT, cache=self._cache, last_only=True).logits
        return logits_B1V[:, -1].float()
