"""Proposals of the most likely tokens of a model. Shapes: V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

from gptkit.components.drafter.length import DraftLength
from gptkit.kinds.drafter import Drafter, TextReader

__all__ = ["Likeliest"]


class Likeliest(Drafter):
    """Drafter that proposes the most likely tokens of a reader, one after another.

    Args:
        reader: the reader.
        k: maximum number of tokens.
        min_probability: propose no further tokens when the most likely one has a lower probability than this.
        adaptive: as for `DraftLength`.
    """

    def __init__(self, reader: TextReader, k: int, min_probability: float, adaptive: bool) -> None:
        self._reader = reader
        self._length = DraftLength(k, adaptive)
        self._min_probability = min_probability

    def propose(self, history: Sequence[int], limit: int) -> Sequence[int]:
        proposal: list[int] = []
        for index in range(min(limit, self._length.value)):
            logits_V = self._reader([*history, *proposal])
            if index == 0:
                self._reader.mark()  # rejected tokens are discarded from here
            best = logits_V.max(dim=-1)
            # The probability of the most likely token: 1 / Σ exp(logits − max).
            if 1 / float((logits_V - best.values).exp().sum()) < self._min_probability:
                break
            proposal.append(int(best.indices))
        return proposal

    def verified(self, n_proposed: int, n_accepted: int) -> None:
        self._length.update(n_proposed, n_accepted)
