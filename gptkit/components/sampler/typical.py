"""Sampler `typical`. Shapes: B batch, V vocabulary, K candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Typical", "TypicalSpec"]


class Typical(Sampler):
    """Runtime part of `TypicalSpec`."""

    first_look = 512
    """Number of tokens that are sorted first: sorting a whole vocabulary takes thirty times as long."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        if self.p == 1:
            return logits_BV
        log_p_BV = logits_BV.log_softmax(dim=-1)
        p_BV = log_p_BV.exp()
        entropy_B1 = -(p_BV * log_p_BV).where(p_BV > 0, 0).sum(dim=-1, keepdim=True)
        distance_BV = (-log_p_BV - entropy_B1).abs()
        vocab_size = logits_BV.shape[-1]
        k = min(self.first_look, vocab_size)
        while True:
            nearest = distance_BV.topk(k, dim=-1, largest=False)
            nearest_p_BK = p_BV.gather(-1, nearest.indices).double()
            kept_BK = nearest_p_BK.cumsum(dim=-1) - nearest_p_BK < self.p
            if k == vocab_size or not kept_BK[:, -1].any():
                break
            k = min(16 * k, vocab_size)
        last_B1 = kept_BK.sum(dim=-1, keepdim=True).clamp_min(1) - 1
        return logits_BV.masked_fill(distance_BV > nearest.values.gather(-1, last_B1), -math.inf)


class TypicalSpec(SamplerSpec):
    """Keep the tokens whose surprisal is closest to the entropy, until their total probability reaches p.

    Formula:
        d[v] = | −ln P[v] − H |,  P = softmax(logits),  H = −Σ P ln P
        keep v  ⇔  the sum of P[w] over all w with d[w] < d[v]  <  p

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://arxiv.org/abs/2202.00666

    Notes:
        The most likely token can be excluded, if its surprisal is far below the entropy.
    """

    formula: ClassVar[str] = r"""
        d_v = |-\ln P_v - H| \qquad H = -\sum_v P_v \ln P_v
        \text{keep } v \iff \sum_{w : d_w < d_v} P_w < p
    """

    anonymous: ClassVar[bool] = True

    name: Literal["typical"] = "typical"
    p: float = Field(0.9, gt=0, le=1, description="The total probability of the kept tokens; 1 keeps all.")

    def build(self, context: SamplerContext) -> Typical:
        return Typical(self.p)
