"""Drafting with the prediction modules of the model's own head.

Shapes: B batch (1), T tokens, E model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gptkit.inference.modes import evaluating
from gptkit.inference.protocol import LanguageModel
from gptkit.kinds.drafter import MAX_DRAFT
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.store import States
from gptkit.nn.forward import Forward
from gptkit.nn.predictions import Predictions

__all__ = ["CachedText", "PredictionReader"]

_CHUNK = 512
"""Maximum number of tokens of one forward pass of the modules."""


@dataclass(frozen=True)
class CachedText:
    """The part of a text that the model's cache holds.

    Attributes:
        first: index of its first token in the text; not 0 if the beginning was discarded.
        hidden_TE: the vectors that the head received for its tokens.
    """

    first: int
    hidden_TE: Tensor


class PredictionReader:
    """Logits of the tokens after one text from a head's prediction modules: a `TextReader`.

    Let n tokens of the text be in the model's cache, and t = n − 1. Module k computes hᵏ[t] from hᵏ⁻¹[t] and the token
    t + k, which is a proposed one from some k on. The last module is then applied to its own result, one token later each
    time (as in EAGLE, https://arxiv.org/abs/2401.15077). The decoding states of the modules keep the tokens for which the
    inputs of all modules are a part of the text; the others are discarded before the next proposal.

    Args:
        predictions: the modules.
        model: the model that they are a part of.
        vocab_size: V, at most the model's.
    """

    def __init__(self, predictions: Predictions, model: LanguageModel, vocab_size: int) -> None:
        self._predictions = predictions
        self._model = model
        self._vocab_size = vocab_size
        self._states: States | None = None
        self._capacity = 0
        self._first = 0
        self._length = 0
        """Number of tokens of the cached part that the states of all modules hold for good."""
        self._last: list[Tensor] = []
        """What each module returned for the last of these tokens, (1, 1, E)."""
        self._visible: list[int] = []
        """The text without tokens before the cached part."""
        self._cached: CachedText | None = None
        self._chain: Tensor | None = None
        self._n_links = 0
        """Number of links of the chain of the running proposal."""
        self._read: list[int] = []
        """The visible tokens, with proposed ones, that the chain has read."""

    def begin(self, history: Sequence[int], cached: CachedText) -> None:
        """Start the proposal for a text, which continues that of the previous proposal."""
        self._visible, self._cached = list(history[cached.first :]), cached
        with torch.inference_mode(), evaluating(self._model):
            self._begin(cached)

    def __call__(self, text: Sequence[int]) -> Tensor:
        cached = self._cached
        n_links = 0 if cached is None else len(text) - cached.first - len(cached.hidden_TE)
        if cached is None or n_links < 1:
            raise ValueError("the text does not continue the history of the proposal")
        visible = list(text[cached.first :])
        with torch.inference_mode(), evaluating(self._model):
            if self._n_links >= n_links or visible[: len(self._read)] != self._read:
                self._begin(cached)
            while self._n_links < n_links:
                k, h_1TE, context = self._link(visible, len(cached.hidden_TE))
            logits_1TV = self._predictions.predicted_logits(k, h_1TE[:, -1:], context.tail(1))
        self._read = visible
        return logits_1TV[0, -1, : self._vocab_size].float()

    def mark(self) -> None:
        """Do nothing: `begin` marks the states."""

    def _begin(self, cached: CachedText) -> None:
        """Process the new tokens of the text with all modules, and mark their states."""
        depth = self._predictions.depth
        known = max(0, min(len(cached.hidden_TE), len(self._visible) - depth))
        states = self._continued(cached, known)
        for first in range(self._length, known, _CHUNK):
            last = min(first + _CHUNK, known)
            context = self._context(self._visible, first, last, states)
            x_1TE, self._last = cached.hidden_TE[None, first:last], []
            for k in range(1, depth + 1):
                x_1TE = self._predictions.predict(k, x_1TE, self._context(self._visible, first + k, last + k), context)
                self._last.append(x_1TE[:, -1:])
        for state in states:
            state.mark()
        self._states, self._first, self._length = states, cached.first, known
        self._chain, self._n_links, self._read = cached.hidden_TE[None, known:], 0, []

    def _continued(self, cached: CachedText, known: int) -> States:
        """Return the states without what the previous proposal added to them, or new ones if they cannot be continued."""
        states, self._states = self._states, None  # an interrupted forward pass leaves states that cannot be used
        limit = self._model.context_length
        needed = min(limit, known + self._predictions.depth + 2 * MAX_DRAFT)
        continues = cached.first == self._first and 0 < self._length <= known and needed <= self._capacity
        if states is not None and continues and all(state.can_truncate(self._length) for state in states):
            for state in states:
                state.truncate(self._length)
            return states
        self._capacity = min(
            limit, 2 * needed
        )  # twice what is needed, so that a growing text is read again a few times only
        self._length, self._last = 0, []
        allocation = Allocation(1, self._capacity, cached.hidden_TE.dtype, cached.hidden_TE.device)
        return self._predictions.new_prediction_states(allocation)

    def _link(self, visible: list[int], n_cached: int) -> tuple[int, Tensor, Forward]:
        """Apply the next module of the chain; return its number, what it returned, (1, T, E), and its tokens' context."""
        assert self._chain is not None
        self._n_links += 1
        depth = self._predictions.depth
        k, last = min(self._n_links, depth), n_cached + max(0, self._n_links - depth)
        if last == self._length:  # `_begin` has processed all cached tokens
            context = self._context(visible, last - 1, last)
            h_1TE = self._last[k - 1]
        else:
            first = last - self._chain.shape[1]
            context = self._context(visible, first, last, self._states)
            h_1TE = self._predictions.predict(k, self._chain, self._context(visible, first + k, last + k), context)
        self._chain = h_1TE if self._n_links < depth else h_1TE[:, -1:]
        return k, h_1TE, context

    def _context(self, visible: list[int], first: int, last: int, states: States | None = None) -> Forward:
        ids_1T = torch.tensor([visible[first:last]], device=self._model.device)
        return Forward(ids_1T, offset=first, states=states)
