"""Sampler `top-k`. Shapes: B batch, V vocabulary, K tokens kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

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

    name: Literal["top-k"] = "top-k"
    k: int = Field(50, ge=1, description="Number of tokens to keep; more than the vocabulary keeps all.")

    def build(self, context: SamplerContext) -> TopK:
        return TopK(self.k)
