"""The part of each text that the model sees: its cache, padding, and what happens when the context is full.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gptkit.inference.protocol import Cache, LanguageModel

__all__ = ["Window"]


class Window:
    """Feeds a batch of texts to a model, each token once.

    Texts of uneven length are padded at their start. When a text has filled the context, all but its last half is
    dropped and read anew (`slide`): a cost once every half context, not once a token. What a row sees depends on its
    own length only, never on the rows beside it.

    Args:
        model: reads the tokens.
        histories: the token ids of each text, at least one each. The caller appends what it writes.
        room: how many tokens will be written at most.
    """

    def __init__(self, model: LanguageModel, histories: list[list[int]], room: int) -> None:
        self._model = model
        self._room = room
        self._cache: Cache | None = None
        self.histories = histories
        self.limit = model.context_length
        self._starts = [max(0, len(history) - self.limit) for history in histories]

    @property
    def full(self) -> bool:
        """Whether the cache can take no more token."""
        return self._cache is not None and self._cache.length >= self._cache.capacity

    def overflows(self, row: int) -> bool:
        """Whether a row's text, new token included, is longer than the context."""
        return len(self.histories[row]) - self._starts[row] > self.limit

    def read(self) -> Tensor:
        """Read the texts from their start; the logits after their last tokens, (B, V) fp32."""
        windows = [history[start:] for history, start in zip(self.histories, self._starts, strict=True)]
        longest = max(len(window) for window in windows)
        padding = [longest - len(window) for window in windows]
        device = self._model.device
        ids_BT = torch.tensor([[0] * pad + window for pad, window in zip(padding, windows, strict=True)], device=device)
        starts_B = torch.tensor(padding, device=device) if any(padding) else None
        capacity = min(self.limit, longest + self._room)
        self._cache = None  # free the old one first
        self._cache = self._model.new_cache(len(windows), capacity=capacity, starts_B=starts_B)
        return self._logits(ids_BT)

    def step(self, chosen_B: Tensor) -> Tensor:
        """Read the tokens that were just appended to the histories; the logits after them, (B, V) fp32."""
        if self.full:
            return self.slide()
        return self._logits(chosen_B[:, None])

    def slide(self) -> Tensor:
        """As `step`, for a full cache: drop the first half of texts that fill the context, and read anew."""
        keep = max(1, self.limit // 2)
        for row, history in enumerate(self.histories):
            if self.overflows(row):
                self._starts[row] = len(history) - keep
        return self.read()

    def reorder(self, rows: Sequence[int]) -> None:
        """Make row i what row ``rows[i]`` was; the number of rows may change."""
        self.histories = [self.histories[row] for row in rows]
        self._starts = [self._starts[row] for row in rows]
        if self.full:
            return  # the next step makes a new cache
        if self._cache is not None:
            self._cache.reorder(torch.tensor(rows, device=self._model.device))

    def _logits(self, ids_BT: Tensor) -> Tensor:
        logits_B1V: Tensor = self._model(ids_BT, cache=self._cache, last_only=True).logits
        return logits_B1V[:, -1].float()
