"""Sampler `frequency-penalty`. Shapes: B batch, V vocabulary, N distinct tokens of all histories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.generated import PromptSampler
from gptkit.components.sampler.history import occurrences
from gptkit.kinds.sampler import SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FrequencyPenalty", "FrequencyPenaltySpec"]


class FrequencyPenalty(PromptSampler):
    """Runtime part of `FrequencyPenaltySpec`."""

    def __init__(self, penalty: float, window: int | None, *, prompt: bool = True) -> None:
        self.penalty, self.window, self.prompt = penalty, window, prompt

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        starts = None if self.prompt else self.prompt_lengths(history)
        places_N, counts_N = occurrences(history, logits_BV, self.window, starts)
        return logits_BV.clone().put_(places_N, logits_BV.take(places_N) - self.penalty * counts_N)


class FrequencyPenaltySpec(SamplerSpec):
    """Penalize tokens in proportion to their number of occurrences in the text.

    Formula:
        for v in the history:  logits[v] ← logits[v] − penalty · count(v)

    Shapes:
        (B, V) → (B, V)
    """

    formula: ClassVar[str] = r"z_v \leftarrow z_v - \text{penalty} \cdot \operatorname{count}(v)"

    name: Literal["frequency-penalty"] = "frequency-penalty"
    penalty: float = Field(
        0.5,
        ge=-100,
        le=100,
        description="Subtracted from a token's logit for each occurrence; negative values favor repetition.",
    )
    window: int | None = Field(None, ge=1, description="Number of last tokens that are counted; all by default.")
    prompt: bool = Field(True, description="Whether the tokens of the prompt count.")

    def build(self, context: SamplerContext) -> FrequencyPenalty:
        return FrequencyPenalty(self.penalty, self.window, prompt=self.prompt)
