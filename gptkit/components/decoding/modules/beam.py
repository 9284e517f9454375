"""Search of `beam`. Shapes: R rows, V vocabulary."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from gptkit.components.decoding.modules.beams import Beams, EarlyStopping
from gptkit.kinds.decoding import Continuation, DecodingContext, Search, Step

__all__ = ["BeamSearch"]


class BeamSearch(Search):
    """Beam search with one group of beams."""

    def __init__(self, context: DecodingContext, width: int, length_penalty: float, early_stopping: EarlyStopping) -> None:
        self._beams = Beams(context, width, length_penalty, early_stopping)

    def step(self, logits_RV: Tensor, ended: Collection[int] = (), hidden_RTE: Tensor | None = None) -> Step:
        return self._beams.advance(logits_RV.log_softmax(dim=-1), ended)

    def results(self) -> list[Continuation]:
        return self._beams.results()
