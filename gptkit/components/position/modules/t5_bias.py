"""Runtime of `t5-bias`.

Shapes: B batch, H heads, T queries, S keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.nn.initial import Initial
from gptkit.nn.position import Position, at

if TYPE_CHECKING:
    from gptkit.components.position.t5_bias import T5BiasSpec

__all__ = ["T5BiasPosition"]


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
        """Return the bucket of each distance, counted backwards from the query; any shape."""
        distance = distance.clamp_min(0)
        ratio = torch.log(distance.clamp_min(1).float() / self.exact) / math.log(self.max_distance / self.exact)
        wide = (self.exact + (ratio * (self.n_buckets - self.exact)).long()).clamp_max(self.n_buckets - 1)
        return torch.where(distance < self.exact, distance, wide)

    def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        distance = query_positions[..., :, None] - key_positions[..., None, :]
        bias = self.table(self.buckets(distance)).movedim(-1, -3)
        return bias if bias.dim() == 4 else bias[None]  # type: ignore[no-any-return]

    def score_mod(self, query_positions: Tensor, key_positions: Tensor) -> Callable[..., Tensor]:
        table = self.table.weight

        def add(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            distance = at(query_positions, row, query) - at(key_positions, row, key)
            return score + table[self.buckets(distance), head]

        return add
