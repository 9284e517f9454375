"""Sampler `eta`. Shapes: B batch, V vocabulary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.components.sampler.cutoff import keep_above
from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Eta", "EtaSpec"]


class Eta(Sampler):
    """Runtime part of `EtaSpec`."""

    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        log_p_BV = logits_BV.log_softmax(dim=-1)
        p_BV = log_p_BV.exp()
        negative_entropy_B1 = (p_BV * log_p_BV).where(p_BV > 0, 0).sum(dim=-1, keepdim=True)
        eta_B1 = (math.sqrt(self.epsilon) * negative_entropy_B1.exp()).clamp_max(self.epsilon)
        return keep_above(logits_BV, p_BV >= eta_B1)


class EtaSpec(SamplerSpec):
    """Keep tokens above a minimum probability that decreases with the entropy of the distribution.

    Formula:
        η = min(ε, √ε · exp(−H)),  P = softmax(logits),  H = −Σ P ln P
        keep v  ⇔  P[v] ≥ η, or v is the most likely token

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://arxiv.org/abs/2210.15191
    """

    formula: ClassVar[str] = r"""
        \eta = \min\left(\epsilon, \sqrt{\epsilon}\, e^{-H}\right) \qquad H = -\sum_v P_v \ln P_v
        \text{keep } v \iff P_v \ge \eta
    """

    anonymous: ClassVar[bool] = True

    name: Literal["eta"] = "eta"
    epsilon: float = Field(3e-4, gt=0, lt=1, description="The maximum cutoff; 0.0003 to 0.004 in the paper.")

    def build(self, context: SamplerContext) -> Eta:
        return Eta(self.epsilon)
