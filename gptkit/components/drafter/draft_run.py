"""Drafter `draft-run`. Shapes: V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.drafter.length import DraftLength
from gptkit.kinds.drafter import MAX_DRAFT, Drafter, DrafterContext, DrafterSpec, TextReader

__all__ = ["DraftRun", "DraftRunSpec"]


class DraftRun(Drafter):
    """Runtime part of `DraftRunSpec`."""

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


class DraftRunSpec(DrafterSpec):
    """Draft model: propose the most likely tokens of another, smaller run with the same tokenizer.

    The run has its own key/value cache, from which rejected tokens are discarded. It pays off if the run is several times
    faster than the model and often agrees with it.

    Paper:
        https://arxiv.org/abs/2211.17192, https://arxiv.org/abs/2302.01318
    """

    name: Literal["draft-run"] = "draft-run"
    run: str = Field(description="Run directory of the smaller model.")
    k: int = Field(5, ge=1, le=MAX_DRAFT, description="Maximum number of proposed tokens.")
    min_probability: float = Field(
        0.4, ge=0, le=1, description="Propose no further tokens when the most likely one has a lower probability than this."
    )
    adaptive: bool = Field(True, description="Propose fewer tokens after rejected ones, and more after accepted ones.")
    examples: ClassVar[tuple[dict[str, Any], ...]] = ({"run": "runs/small"},)

    def build(self, context: DrafterContext) -> DraftRun:
        return DraftRun(context.open_run(self.run), self.k, self.min_probability, self.adaptive)
