"""Decoding `beam`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.decoding import DecodingContext, DecodingSpec

if TYPE_CHECKING:
    from gptkit.components.decoding.modules.beam import BeamSearch

__all__ = ["BeamSpec"]


class BeamSpec(DecodingSpec):
    """Beam search: approximate search for the most likely continuations.

    Formula:
        score = Σ ln P[x] / (number of tokens, including the stop token) ^ length_penalty

    Shapes:
        (width, V) → width rows

    Paper:
        https://arxiv.org/abs/1609.08144

    Notes:
        Each step keeps the `width` most likely of all one-token extensions. It ends when `width` continuations have ended
        and, with early_stopping `likely`, the best live one currently scores no better than the worst of them; with
        `always`, at once; with `never`, when no live one can become better. The distribution is that of the samplers:
        without any, the model's.
    """

    formula: ClassVar[str] = r"\text{score} = \frac{\sum_t \ln P(x_t)}{n^{\lambda}}"

    deterministic: ClassVar[bool] = True

    name: Literal["beam"] = "beam"
    width: int = Field(4, ge=1, le=1000, description="Number of beams; 1 selects the most likely token each time.")
    length_penalty: float = Field(
        1.0, ge=-10, le=10, description="0 ranks by probability, which favors short texts; above 1 favors long ones."
    )
    early_stopping: Literal["never", "likely", "always"] = Field(
        "likely", description="When the search ends after `width` continuations have ended."
    )

    @property
    def n_rows(self) -> int:
        return self.width

    def build(self, context: DecodingContext) -> BeamSearch:
        from gptkit.components.decoding.modules.beam import BeamSearch

        return BeamSearch(context, self.width, self.length_penalty, self.early_stopping)
