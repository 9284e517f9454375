"""Decoding `best-of`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.decoding import DecodingContext, DecodingSpec

if TYPE_CHECKING:
    from gptkit.components.decoding.modules.best_of import Sampling

__all__ = ["BestOfSpec"]


class BestOfSpec(DecodingSpec):
    """Sample n continuations independently, and rank them by likelihood or by majority.

    Formula:
        likelihood: score = Σ ln P[x] / (number of tokens, including the stop token),  P as the samplers left it
        majority: score = number of equal continuations among the n; the likelihood decides between equal numbers

    Shapes:
        (n, V) → n rows

    Paper:
        https://arxiv.org/abs/2203.11171

    Notes:
        Majority voting is useful for short answers only, since it compares whole continuations.
    """

    formula: ClassVar[str] = r"\text{score} = \frac{1}{n} \sum_t \ln P(x_t)"

    name: Literal["best-of"] = "best-of"
    n: int = Field(4, ge=1, le=1000, description="Number of continuations.")
    rank: Literal["likelihood", "majority"] = Field("likelihood", description="What the best continuation is.")

    @property
    def n_rows(self) -> int:
        return self.n

    def build(self, context: DecodingContext) -> Sampling:
        from gptkit.components.decoding.modules.best_of import Sampling

        streams = [f"{context.stream}/{index}" for index in range(self.n)]
        return Sampling(context, streams, majority=self.rank == "majority")
