"""Sampler `top-k`. Shapes: B batch, V vocabulary, K tokens kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.sampler import Sampler, SamplerContext, SamplerSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TopK", "TopKSpec"]


class TopK(Sampler):
    """Runtime part of `TopKSpec`."""

    def __init__(self, k: int) -> None:
        self.k = k

    def __call__(self, logits_BV: Tensor, history: Sequence[Sequence[int]]) -> Tensor:
        if self.k >= logits_BV.shape[-1]:
            return logits_BV
        lowest_B1 = logits_BV.topk(self.k, dim=-1).values[:, -1:]
        return logits_BV.masked_fill(logits_BV < lowest_B1, -math.inf)

    def reduced(self, logits_BV: Tensor) -> tuple[Tensor, Tensor] | None:
        if 4 * self.k > logits_BV.shape[-1]:
            return None
        best = logits_BV.topk(self.k, dim=-1)
        if int((logits_BV >= best.values[:, -1:]).sum()) != best.values.numel():
            return None  # equal logits, of which all are kept, or NaN
        ids_BK, order_BK = best.indices.sort(dim=-1)
        return best.values.gather(-1, order_BK), ids_BK


class TopKSpec(SamplerSpec):
    """Keep the k most likely tokens.

    Formula:
        keep v  ⇔  logits[v] ≥ the k-th largest logit

    Shapes:
        (B, V) → (B, V)

    Paper:
        https://arxiv.org/abs/1805.04833

    Notes:
        Tokens with the same logit as the k-th are kept too.
    """

    formula: ClassVar[str] = r"\text{keep } v \iff z_v \ge z_{(k)}"

    anonymous: ClassVar[bool] = True

    name: Literal["top-k"] = "top-k"
    k: int = Field(50, ge=1, description="Number of tokens to keep; more than the vocabulary keeps all.")

    def build(self, context: SamplerContext) -> TopK:
        return TopK(self.k)
