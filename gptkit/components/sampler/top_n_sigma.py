"""Sampler `top-n-sigma`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TopNSigma", "TopNSigmaSpec"]


class TopNSigma(Sampler):
    """Runtime part of `TopNSigmaSpec`."""

    def __init__(self, n: float) -> None:
        self.n = n

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        allowed_BV = logits_BV > -math.inf
        count_B1 = allowed_BV.sum(dim=-1, keepdim=True)
        mean_B1 = logits_BV.where(allowed_BV, 0).sum(dim=-1, keepdim=True) / count_B1
        square_B1 = (logits_BV - mean_B1).where(allowed_BV, 0).square().sum(dim=-1, keepdim=True)
        sigma_B1 = (square_B1 / count_B1).sqrt()
        lowest_B1 = logits_BV.amax(dim=-1, keepdim=True) - self.n * sigma_B1
        return logits_BV.masked_fill(logits_BV < lowest_B1, -math.inf)


class TopNSigmaSpec(SamplerSpec):
    """Keep tokens whose logit is at most n standard deviations below the highest, independent of the temperature.

    Formula:
        keep v  ⇔  logits[v] ≥ max(logits) − n · σ,  σ the standard deviation of the logits that are not excluded

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://arxiv.org/abs/2411.07641
    """

    formula: ClassVar[str] = r"\text{keep } v \iff z_v \ge \max z - n\,\sigma(z)"

    anonymous: ClassVar[bool] = True

    name: Literal["top-n-sigma"] = "top-n-sigma"
    n: float = Field(1.0, gt=0, description="Number of standard deviations below the highest logit.")

    def build(self, context: SamplerContext) -> TopNSigma:
        return TopNSigma(self.n)
