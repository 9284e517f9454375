"""`t5-bias` relative positions.

Shapes: B batch, H heads, T queries, S keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.core.errors import Problem
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape, PositionSpec
from gptkit.nn.initial import Initial
from gptkit.nn.position import Position

__all__ = ["T5BiasPosition", "T5BiasSpec"]


class T5BiasSpec(PositionSpec):
    """A trainable bias for each head and bucket of distances, the buckets growing wider with the distance.

    Formula:
        score[h, t, s] += table[bucket(t - s), h]
        bucket(n) = n for n < k, else k + ⌊log(n / k) / log(max_distance / k) · k⌋, at most 2k - 1;  k = n_buckets / 2
    Shapes:
        bias (H, T, S); table (n_buckets, H)
    Paper:
        https://arxiv.org/abs/1910.10683
    Notes:
        T5 itself leaves the scores unscaled: set the attention's `scale: 1` to follow it.
    """

    name: Literal["t5-bias"] = "t5-bias"
    uses: ClassVar[frozenset[str]] = frozenset({"bias"})

    n_buckets: int = Field(32, ge=2, description="Distances told apart; half of them exactly.")
    max_distance: int = Field(128, ge=2, description="From this distance on, all fall into the last bucket.")
    shared: bool = Field(True, description="One table for all layers, as T5 has it, or one each.")

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        if self.n_buckets % 2:
            yield Problem(
                ("n_buckets",), f"half of the buckets are exact, but {self.n_buckets} is odd; choose an even number"
            )
        if self.max_distance <= self.n_buckets // 2:
            yield Problem(
                ("max_distance",),
                f"max_distance {self.max_distance} must exceed the {self.n_buckets // 2} distances told apart exactly",
            )

    def build(self, context: BuildContext, *, heads: HeadShape) -> T5BiasPosition:
        if self.shared:
            return context.share(("t5-bias", self, heads.n_heads), lambda: T5BiasPosition(self, heads.n_heads))
        return T5BiasPosition(self, heads.n_heads)

    def describe(self) -> str:
        return f"t5-bias, {self.n_buckets} buckets to {self.max_distance}"


class T5BiasPosition(Position):
    """Runtime of `t5-bias`."""

    def __init__(self, spec: T5BiasSpec, n_heads: int) -> None:
        super().__init__()
        self.exact = spec.n_buckets // 2
        self.n_buckets = spec.n_buckets
        self.max_distance = spec.max_distance
        self.table = nn.Embedding(spec.n_buckets, n_heads)

    def initial(self) -> dict[str, Initial]:
        return {"table.weight": "embedding"}

    def buckets(self, distance: Tensor) -> Tensor:
        """The bucket of each distance, counted backwards from the query; any shape."""
        distance = distance.clamp_min(0)
        ratio = torch.log(distance.clamp_min(1).float() / self.exact) / math.log(self.max_distance / self.exact)
        wide = (self.exact + (ratio * (self.n_buckets - self.exact)).long()).clamp_max(self.n_buckets - 1)
        return torch.where(distance < self.exact, distance, wide)

    def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        distance = query_positions[..., :, None] - key_positions[..., None, :]
        bias = self.table(self.buckets(distance)).movedim(-1, -3)
        return bias if bias.dim() == 4 else bias[None]  # type: ignore[no-any-return]
