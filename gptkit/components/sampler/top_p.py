"""Sampler `top-p`. Shapes: B batch, V vocabulary, K candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TopP", "TopPSpec"]


class TopP(Sampler):
    """Runtime part of `TopPSpec`."""

    first_look = 512
    """Number of candidates that are sorted first: sorting a whole vocabulary takes thirty times as long."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        if self.p == 1:
            return logits_BV
        vocab_size = logits_BV.shape[-1]
        total_B1 = logits_BV.logsumexp(dim=-1, keepdim=True)
        k = min(self.first_look, vocab_size)
        while True:
            best_BK = logits_BV.topk(k, dim=-1).values
            p_BK = (best_BK - total_B1).exp().double()
            before_BK = p_BK.cumsum(dim=-1) - p_BK
            kept_BK = before_BK < self.p
            if k == vocab_size or not kept_BK[:, -1].any():
                break
            k = min(16 * k, vocab_size)
        last_B1 = kept_BK.sum(dim=-1, keepdim=True).clamp_min(1) - 1
        return logits_BV.masked_fill(logits_BV < best_BK.gather(-1, last_B1), -math.inf)


class TopPSpec(SamplerSpec):
    """Nucleus sampling: keep the most likely tokens whose total probability reaches p.

    Formula:
        keep v  ⇔  the sum of P[w] over all w more likely than v  <  p,  where P = softmax(logits)

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://arxiv.org/abs/1904.09751

    Notes:
        Tokens with the same probability as the last kept one are kept too.
    """

    name: Literal["top-p"] = "top-p"
    p: float = Field(0.9, gt=0, le=1, description="The total probability of the kept tokens; 1 keeps all.")

    def build(self, context: SamplerContext) -> TopP:
        return TopP(self.p)
