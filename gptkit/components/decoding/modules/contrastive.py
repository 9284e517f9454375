"""Search of `contrastive`. Shapes: R rows, one per candidate, T tokens, E width, V vocabulary."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gptkit.kinds.decoding import Continuation, DecodingContext, Search, Step

__all__ = ["ContrastiveSearch"]


class ContrastiveSearch(Search):
    """Contrastive search; every row is the text with another candidate for its last token."""

    needs_hidden: ClassVar[bool] = True

    def __init__(self, context: DecodingContext, k: int, alpha: float) -> None:
        self._context, self._k, self._alpha = context, k, alpha
        self._text: list[int] = []
        self._total, self._n_scored = 0.0, 0
        self._ended = False
        self._tokens: list[int] = []
        """The candidates, the most likely first; empty before the first step."""
        self._p_R: Tensor | None = None
        self._seen_TE: Tensor | None = None
        """Hidden states of the text, of length 1."""

    def step(self, logits_RV: Tensor, ended: Collection[int] = (), hidden_RTE: Tensor | None = None) -> Step:
        assert hidden_RTE is not None
        hidden_RTE = F.normalize(hidden_RTE.float(), dim=-1)
        best = 0
        if self._seen_TE is None or self._p_R is None:
            self._seen_TE = hidden_RTE[0]
        else:
            last_RE = hidden_RTE[:, -1]
            similarity_R = (last_RE @ self._seen_TE.T).amax(dim=-1)
            best = int(((1 - self._alpha) * self._p_R - self._alpha * similarity_R).argmax())
            self._total += float(self._p_R[best].log())
            self._n_scored += 1
            if self._tokens[best] in self._context.stop_ids:
                self._ended = True
                return Step()
            self._text.append(self._tokens[best])
            self._ended = best in ended
            if self._ended or len(self._text) >= self._context.max_new_tokens:
                return Step()
            self._seen_TE = torch.cat((self._seen_TE, last_RE[best : best + 1]))
        likely = logits_RV[best].softmax(dim=-1).topk(min(self._k, logits_RV.shape[-1]))
        n_candidates = max(1, int((likely.values > 0).sum()))
        self._p_R, self._tokens = likely.values[:n_candidates], likely.indices[:n_candidates].tolist()
        return Step([best] * n_candidates, self._tokens)

    def results(self) -> list[Continuation]:
        return [Continuation(self._text, self._total / max(1, self._n_scored), self._ended)]
