"""Sampler `repetition-penalty`. Shapes: B batch, V vocabulary, N distinct tokens of all histories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.generated import PromptSampler
from gptkit.components.sampler.history import occurrences
from gptkit.kinds.sampler import SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RepetitionPenalty", "RepetitionPenaltySpec"]


class RepetitionPenalty(PromptSampler):
    """Runtime part of `RepetitionPenaltySpec`."""

    def __init__(self, penalty: float, window: int | None, *, prompt: bool = True) -> None:
        self.penalty, self.window, self.prompt = penalty, window, prompt

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        starts = None if self.prompt else self.prompt_lengths(history)
        places_N, _ = occurrences(history, logits_BV, self.window, starts)
        seen_N = logits_BV.take(places_N)
        punished_N = (seen_N * self.penalty).where(seen_N < 0, seen_N / self.penalty)
        return logits_BV.clone().put_(places_N, punished_N)


class RepetitionPenaltySpec(SamplerSpec):
    """Penalize tokens that occur in the text by a factor.

    Formula:
        for v in the history:  logits[v] ← logits[v] / penalty if logits[v] > 0, else logits[v] · penalty

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://arxiv.org/abs/1909.05858

    Notes:
        The result depends on the sign of the logits, so place it before `temperature`. Values below 1 favor repetition.
    """

    formula: ClassVar[str] = r"""
        z_v \leftarrow \begin{cases} z_v / r & z_v > 0 \\ z_v \cdot r & z_v \le 0 \end{cases} \qquad
        \operatorname{count}(v) > 0
    """

    name: Literal["repetition-penalty"] = "repetition-penalty"
    penalty: float = Field(1.1, ge=0.01, le=100, description="Strength: 1 has no effect, 1.2 is strong.")
    window: int | None = Field(None, ge=1, description="Number of last tokens that are considered; all by default.")
    prompt: bool = Field(True, description="Whether the tokens of the prompt count.")

    def build(self, context: SamplerContext) -> RepetitionPenalty:
        return RepetitionPenalty(self.penalty, self.window, prompt=self.prompt)
