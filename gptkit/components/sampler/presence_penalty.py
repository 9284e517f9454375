"""Sampler `presence-penalty`. Shapes: B batch, V vocabulary, N distinct tokens of all histories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.generated import PromptSampler
from gptkit.components.sampler.history import occurrences
from gptkit.kinds.sampler import SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PresencePenalty", "PresencePenaltySpec"]


class PresencePenalty(PromptSampler):
    """Runtime part of `PresencePenaltySpec`."""

    def __init__(self, penalty: float, window: int | None, *, prompt: bool = True) -> None:
        self.penalty, self.window, self.prompt = penalty, window, prompt

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        starts = None if self.prompt else self.prompt_lengths(history)
        places_N, _ = occurrences(history, logits_BV, self.window, starts)
        return logits_BV.clone().put_(places_N, logits_BV.take(places_N) - self.penalty)


class PresencePenaltySpec(SamplerSpec):
    """Penalize tokens that occur in the text, including the prompt, independent of the number of occurrences.

    Formula:
        for v in the history:  logits[v] ← logits[v] − penalty

    Shapes:
        (B, V) → (B, V)
    """

    formula: ClassVar[str] = r"z_v \leftarrow z_v - \text{penalty} \qquad \operatorname{count}(v) > 0"

    name: Literal["presence-penalty"] = "presence-penalty"
    penalty: float = Field(
        0.5,
        ge=-100,
        le=100,
        description="Subtracted from the logit of a token that occurs; negative values favor repetition.",
    )
    window: int | None = Field(None, ge=1, description="Number of last tokens that are considered; all by default.")
    prompt: bool = Field(True, description="Whether the tokens of the prompt count.")

    def build(self, context: SamplerContext) -> PresencePenalty:
        return PresencePenalty(self.penalty, self.window, prompt=self.prompt)
