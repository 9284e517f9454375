"""Sampler `top-h`. Shapes: B batch, V vocabulary, K candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TopH", "TopHSpec"]


class TopH(Sampler):
    """Runtime part of `TopHSpec`."""

    def __init__(self, h: float, candidates: int) -> None:
        self.h, self.candidates = h, candidates

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        best_BK = logits_BV.topk(min(self.candidates, logits_BV.shape[-1]), dim=-1).values
        log_p_BK = best_BK.double().log_softmax(dim=-1)
        terms_BK = -(log_p_BK.exp() * log_p_BK).where(log_p_BK > -math.inf, 0)
        sums_BK = terms_BK.cumsum(dim=-1)
        n_kept_B1 = (sums_BK <= self.h * sums_BK[:, -1:]).sum(dim=-1, keepdim=True).clamp_min(1)
        return logits_BV.masked_fill(logits_BV < best_BK.gather(-1, n_kept_B1 - 1), -math.inf)


class TopHSpec(SamplerSpec):
    """Keep the most likely tokens whose share of the entropy is at most h.

    Formula:
        keep the most likely tokens i = 1, …, n with the largest n so that  −Σᵢ≤ₙ P[i] ln P[i]  ≤  h · H,  at least one
        P = softmax over the `candidates` most likely tokens,  H = −Σ P ln P

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://arxiv.org/abs/2509.02510

    Notes:
        Tokens with the same logit as the last kept one are kept too.
    """

    formula: ClassVar[str] = r"""
        \text{keep } 1 \dots n: \qquad -\sum_{i \le n} P_i \ln P_i \le h H
        H = -\sum_v P_v \ln P_v
    """

    anonymous: ClassVar[bool] = True

    name: Literal["top-h"] = "top-h"
    h: float = Field(0.4, gt=0, le=1, description="The share of the entropy of the kept tokens; 1 keeps all candidates.")
    candidates: int = Field(100, ge=1, description="Number of most likely tokens that are considered.")

    def build(self, context: SamplerContext) -> TopH:
        return TopH(self.h, self.candidates)
