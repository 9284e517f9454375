"""Search of `sample` and `best-of`: independent samples.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence

from torch import Tensor

from gptkit.kinds.decoding import Continuation, DecodingContext, Search, Step
from gptkit.ops.draw import draw

__all__ = ["Sampling"]


class Sampling(Search):
    """Sample continuations of one prompt, each with a random stream of its own.

    Args:
        context: the prompt's context.
        streams: the random seed of each continuation.
        majority: rank by the number of equal continuations, then by likelihood; else by likelihood only.
    """

    def __init__(self, context: DecodingContext, streams: Sequence[str], *, majority: bool = False) -> None:
        self._context = context
        self._generators = [random.Random(stream) for stream in streams]
        self._majority = majority
        self._texts: list[list[int]] = [[] for _ in streams]
        self._totals = [0.0] * len(streams)
        self._n_scored = [0] * len(streams)
        self._ended = [False] * len(streams)
        self._live: list[int] | None = None
        """Number of the continuation in each row; None before the first step."""

    def step(self, logits_RV: Tensor, ended: Collection[int] = (), hidden_RTE: Tensor | None = None) -> Step:
        rows = [0] * len(self._texts) if self._live is None else list(range(len(self._live)))
        numbers = list(range(len(self._texts))) if self._live is None else self._live
        for row in ended:
            self._ended[numbers[row]] = True
        kept = [index for index, number in enumerate(numbers) if not self._ended[number]]
        rows, numbers = [rows[index] for index in kept], [numbers[index] for index in kept]
        if not numbers:
            return Step()
        log_p_RV = logits_RV[rows].log_softmax(dim=-1)
        tokens_R = draw(log_p_RV.exp(), [self._generators[number].random() for number in numbers])
        tokens = tokens_R.tolist()
        scores = log_p_RV.gather(-1, tokens_R[:, None])[:, 0].tolist()
        live = []
        for index, (number, token, score) in enumerate(zip(numbers, tokens, scores, strict=True)):
            self._totals[number] += score
            self._n_scored[number] += 1
            if token in self._context.stop_ids:
                self._ended[number] = True
                continue
            self._texts[number].append(token)
            if len(self._texts[number]) < self._context.max_new_tokens:
                live.append(index)
        self._live = [numbers[index] for index in live]
        return Step([rows[index] for index in live], [tokens[index] for index in live])

    def results(self) -> list[Continuation]:
        votes = Counter(tuple(text) for text in self._texts)
        ranked = [
            (votes[tuple(text)] if self._majority else 0, self._mean(number), number)
            for number, text in enumerate(self._texts)
        ]
        ranked.sort(key=lambda each: (-each[0], -each[1], each[2]))
        return [
            Continuation(self._texts[number], float(count) if self._majority else mean, self._ended[number])
            for count, mean, number in ranked
        ]

    def _mean(self, number: int) -> float:
        return self._totals[number] / max(1, self._n_scored[number])
