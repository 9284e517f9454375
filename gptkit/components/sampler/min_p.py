"""Sampler `min-p`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MinP", "MinPSpec"]


class MinP(Sampler):
    """Runtime part of `MinPSpec`."""

    def __init__(self, p: float) -> None:
        # P[v] / max P is exp(logits[v] - max logits), so no softmax is necessary.
        self.below_best = math.log(p)

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        lowest_B1 = logits_BV.amax(dim=-1, keepdim=True) + self.below_best
        return logits_BV.masked_fill(logits_BV < lowest_B1, -math.inf)


class MinPSpec(SamplerSpec):
    """Keep tokens at least p times as likely as the most likely one.

    Formula:
        keep v  ⇔  P[v] ≥ p · max_w P[w],  where P = softmax(logits)

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://arxiv.org/abs/2407.01082
    """

    formula: ClassVar[str] = r"\text{keep } v \iff P_v \ge p \max_w P_w \qquad P = \operatorname{softmax}(z)"

    anonymous: ClassVar[bool] = True

    name: Literal["min-p"] = "min-p"
    p: float = Field(0.05, gt=0, le=1, description="The minimum probability relative to the most likely token's.")

    def build(self, context: SamplerContext) -> MinP:
        return MinP(self.p)
