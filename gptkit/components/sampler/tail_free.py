"""Sampler `tail-free`. Shapes: B batch, V vocabulary, K tokens that are not excluded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TailFree", "TailFreeSpec"]


class TailFree(Sampler):
    """Runtime part of `TailFreeSpec`."""

    def __init__(self, z: float) -> None:
        self.z = z

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        import torch

        n_B1 = (logits_BV > -math.inf).sum(dim=-1, keepdim=True)
        n_most = int(n_B1.max())
        if self.z == 1 or n_most < 3:
            return logits_BV
        best_BK = logits_BV.topk(n_most, dim=-1).values
        curvature_BK = best_BK.double().softmax(dim=-1).diff(dim=-1).diff(dim=-1).abs()
        # A row may have fewer tokens than others; only triples of its own count.
        ranks_K = torch.arange(n_most - 2, device=logits_BV.device)
        own_BK = ranks_K < n_B1 - 2
        curvature_BK = curvature_BK.where(own_BK, 0)
        total_B1 = curvature_BK.sum(dim=-1, keepdim=True)
        beyond_BK = (curvature_BK.cumsum(dim=-1) > self.z * total_B1) & own_BK & (ranks_K > 0)
        n_kept_B1 = beyond_BK.int().argmax(dim=-1, keepdim=True)
        n_kept_B1 = n_kept_B1.where(beyond_BK.any(dim=-1, keepdim=True), n_B1)
        return logits_BV.masked_fill(logits_BV < best_BK.gather(-1, n_kept_B1 - 1), -math.inf)


class TailFreeSpec(SamplerSpec):
    """Tail-free sampling: cut off the tail of the sorted probabilities where their curve becomes flat.

    Formula:
        c[i] = |(P[i] − P[i + 1]) − (P[i + 1] − P[i + 2])|,  P = softmax(logits), sorted in descending order, i = 1, 2, …
        keep the tokens before the first i > 1 with  c[1] + … + c[i]  >  z · Σ c;  all if there is none

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://www.trentonbricken.com/Tail-Free-Sampling/

    Notes:
        No effect with fewer than three tokens. Tokens with the same logit as the last kept one are kept too.
    """

    formula: ClassVar[str] = r"""
        c_i = |(P_i - P_{i+1}) - (P_{i+1} - P_{i+2})|
        \text{keep } i \iff \frac{\sum_{j \le i} c_j}{\sum_j c_j} \le z
    """

    anonymous: ClassVar[bool] = True

    name: Literal["tail-free"] = "tail-free"
    z: float = Field(0.95, gt=0, le=1, description="The share of the curvature that is kept; 1 keeps all.")

    def build(self, context: SamplerContext) -> TailFree:
        return TailFree(self.z)
