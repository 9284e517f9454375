"""Search of `diverse-beam`. Shapes: R rows, V vocabulary."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from gptkit.components.decoding.modules.beams import Beams, EarlyStopping
from gptkit.kinds.decoding import Continuation, DecodingContext, Search, Step

__all__ = ["DiverseBeamSearch"]


class DiverseBeamSearch(Search):
    """Beam search in groups, each of which avoids the tokens that the groups before it choose in the same step."""

    def __init__(
        self,
        context: DecodingContext,
        groups: int,
        width: int,
        diversity: float,
        length_penalty: float,
        early_stopping: EarlyStopping,
    ) -> None:
        self._groups = [Beams(context, width, length_penalty, early_stopping) for _ in range(groups)]
        self._diversity = diversity
        self._first_rows: list[int] | None = None
        """The first row of each group; None before the first step, when all share the prompt's row."""

    def step(self, logits_RV: Tensor, ended: Collection[int] = (), hidden_RTE: Tensor | None = None) -> Step:
        log_p_RV = logits_RV.log_softmax(dim=-1)
        chosen_V = torch.zeros_like(log_p_RV[0])
        rows: list[int] = []
        tokens: list[int] = []
        starts = [0] * len(self._groups) if self._first_rows is None else self._first_rows
        self._first_rows = []
        for group, start in zip(self._groups, starts, strict=True):
            self._first_rows.append(len(rows))
            if group.settled:
                continue
            own_RV = log_p_RV[start : start + len(group.texts)] - self._diversity * chosen_V
            step = group.advance(own_RV, [row - start for row in ended if start <= row < start + len(group.texts)])
            rows += [start + row for row in step.rows]
            tokens += step.tokens
            for token in group.tokens:
                chosen_V[token] += 1
        return Step(rows, tokens)

    def results(self) -> list[Continuation]:
        return sorted((each for group in self._groups for each in group.results()), key=lambda each: -each.score)
