"""Sampler `top-p`. Shapes: B batch, V vocabulary, K candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

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

    def reduced(self, logits_BV: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.p == 1 or 4 * self.first_look > logits_BV.shape[-1]:
            return None
        total_B1 = logits_BV.logsumexp(dim=-1, keepdim=True)
        best = logits_BV.topk(self.first_look, dim=-1)
        p_BK = (best.values - total_B1).exp().double()
        kept_BK = p_BK.cumsum(dim=-1) - p_BK < self.p
        last_B1 = kept_BK.sum(dim=-1, keepdim=True).clamp_min(1) - 1
        lowest_B1 = best.values.gather(-1, last_B1)
        # Every token as likely as the last kept one must be among the candidates; a comparison with NaN is false.
        if not bool((best.values[:, -1:] < lowest_B1).all()):
            return None
        n_kept = int((best.values >= lowest_B1).sum(dim=-1).max())
        ids_BK, order_BK = best.indices[:, :n_kept].sort(dim=-1)
        values_BK = best.values[:, :n_kept].gather(-1, order_BK)
        return values_BK.masked_fill(values_BK < lowest_B1, -math.inf), ids_BK


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

    formula: ClassVar[str] = r"\text{keep } v \iff \sum_{w : P_w > P_v} P_w < p \qquad P = \operatorname{softmax}(z)"

    anonymous: ClassVar[bool] = True

    name: Literal["top-p"] = "top-p"
    p: float = Field(0.9, gt=0, le=1, description="The total probability of the kept tokens; 1 keeps all.")

    def build(self, context: SamplerContext) -> TopP:
        return TopP(self.p)
