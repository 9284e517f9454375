"""Beams: the most likely texts of a search.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor

from gptkit.kinds.decoding import Continuation, DecodingContext, Step

__all__ = ["Beams", "EarlyStopping"]

EarlyStopping = Literal["never", "likely", "always"]
"""When a search ends after `width` continuations have ended."""


class Beams:
    """A group of beams with a common prompt.

    Args:
        context: the prompt's context.
        width: maximum number of beams.
        length_penalty: exponent of the length in scores.
        early_stopping: when the search ends.

    Attributes:
        texts: the generated tokens of each live beam, the most likely first.
        finished: the continuations that have ended, best first, at most `width`.
        tokens: the tokens by which the last step continued beams.
    """

    def __init__(self, context: DecodingContext, width: int, length_penalty: float, early_stopping: EarlyStopping) -> None:
        self._context, self._width, self._length_penalty = context, width, length_penalty
        self._early_stopping = early_stopping
        self.texts: list[list[int]] = [[]]
        self.finished: list[Continuation] = []
        self.tokens: list[int] = []
        self._totals = [0.0]

    def advance(self, log_p_RV: Tensor, ended: Collection[int] = ()) -> Step:
        """Continue the beams by one token.

        Args:
            log_p_RV: for each beam the log-probabilities of the next token; -inf excludes one.
            ended: beams that have ended with their last token.

        Returns:
            The new beams; none if the search has ended.
        """
        stop_ids, vocab_size = self._context.stop_ids, log_p_RV.shape[-1]
        total_RV = log_p_RV + torch.tensor(self._totals, device=log_p_RV.device)[:, None]
        for row in ended:
            self._keep(self.texts[row], self._totals[row], len(self.texts[row]), ended=True)
            total_RV[row] = -torch.inf
        # Enough candidates that `width` remain even if every beam ends with every stop token.
        n_candidates = min(total_RV.numel(), self._width * (1 + len(stop_ids)))
        best = total_RV.flatten().topk(n_candidates)
        rows: list[int] = []
        tokens: list[int] = []
        totals: list[float] = []
        for rank, (total, place) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            row, token = divmod(place, vocab_size)
            if total == -torch.inf:
                break
            if token in stop_ids:
                if rank < self._width:
                    self._keep(self.texts[row], total, len(self.texts[row]) + 1, ended=True)
            elif len(rows) < self._width:
                rows.append(row)
                tokens.append(token)
                totals.append(total)
        self.texts = [[*self.texts[row], token] for row, token in zip(rows, tokens, strict=True)]
        self.tokens, self._totals = tokens, totals
        if self.texts and len(self.texts[0]) >= self._context.max_new_tokens:
            self.end()
        return Step() if self.settled else Step(rows, tokens)

    @property
    def settled(self) -> bool:
        """Whether the search has ended: no beam is live, or none can become better than the finished ones."""
        if not self._totals:
            return True
        if len(self.finished) < self._width:
            return False
        if self._early_stopping == "always":
            return True
        n_tokens = len(self.texts[0])
        if self._early_stopping == "never" and self._length_penalty > 0:
            n_tokens = self._context.max_new_tokens  # the best score that the beam could still have
        return self._score(self._totals[0], n_tokens) <= self.finished[-1].score

    def end(self) -> None:
        """Finish the live beams as they are."""
        for text, total in zip(self.texts, self._totals, strict=True):
            self._keep(text, total, len(text), ended=False)
        self.texts, self._totals = [], []

    def results(self) -> list[Continuation]:
        """Return the continuations, best first: the finished ones, or the live ones if none has finished."""
        if self.finished:
            return self.finished
        return [
            Continuation(text, self._score(total, len(text)), ended=False)
            for text, total in zip(self.texts, self._totals, strict=True)
        ]

    def _score(self, total: float, n_tokens: int) -> float:
        score: float = total / max(1, n_tokens) ** self._length_penalty
        return score

    def _keep(self, ids: list[int], total: float, n_tokens: int, *, ended: bool) -> None:
        self.finished.append(Continuation(ids, self._score(total, n_tokens), ended))
        self.finished.sort(key=lambda each: -each.score)
        del self.finished[self._width :]
