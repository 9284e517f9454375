"""Sampler `frequency-penalty`. Shapes: B batch, V vocabulary, N distinct tokens of all histories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from gptkit.components.sampler.history import occurrences
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FrequencyPenalty", "FrequencyPenaltySpec"]


class FrequencyPenalty(Sampler):
    """The runtime part."""

    def __init__(self, penalty: float, window: int | None) -> None:
        self.penalty = penalty
        self.window = window

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        places_N, counts_N = occurrences(history, logits_BV, self.window)
        return logits_BV.clone().put_(places_N, logits_BV.take(places_N) - self.penalty * counts_N)


class FrequencyPenaltySpec(SamplerSpec):
    """Makes tokens less likely each time that the text holds them, prompt included.

    Formula:
        for v in the history:  logits[v] ← logits[v] − penalty · count(v)

    Shapes:
        (B, V) → (B, V)
    """

    name: Literal["frequency-penalty"] = "frequency-penalty"
    penalty: float = Field(
        0.5, ge=-100, le=100, description="Taken off a token's logit for each occurrence; below 0 it rewards repetition."
    )
    window: int | None = Field(None, ge=1, description="How many last tokens count; all of them by default.")

    def build(self, context: SamplerContext) -> FrequencyPenalty:
        return FrequencyPenalty(self.penalty, self.window)
