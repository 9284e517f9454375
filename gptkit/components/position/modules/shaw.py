"""Runtime of `shaw`.

Shapes: B batch, H heads, T queries, S keys, D head size, N distinct distances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.nn.initial import Initial
from gptkit.nn.position import Position

if TYPE_CHECKING:
    from gptkit.components.position.shaw import ShawSpec

__all__ = ["ShawPosition"]


class ShawPosition(Position):
    """Runtime of `shaw`."""

    def __init__(self, spec: ShawSpec, d_head: int) -> None:
        super().__init__()
        self.max_distance = spec.max_distance
        self.keys = nn.Embedding(spec.max_distance + 1, d_head)
        self.values = nn.Embedding(spec.max_distance + 1, d_head) if spec.values else None

    def initial(self) -> dict[str, Initial]:
        starts: dict[str, Initial] = {"keys.weight": "embedding"}
        if self.values is not None:
            starts["values.weight"] = "embedding"
        return starts

    def _distances(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """Return the clipped distances, (1 or B, 1, T, S)."""
        distance = (query_positions[..., :, None] - key_positions[..., None, :]).clamp(0, self.max_distance)
        return distance[:, None] if distance.dim() == 3 else distance[None, None]

    def content_bias(self, q_BHTD: Tensor, k_BHSD: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        by_distance_BHTN = q_BHTD @ self.keys.weight.to(q_BHTD.dtype).T
        index = self._distances(query_positions, key_positions)
        return by_distance_BHTN.gather(-1, index.expand(*by_distance_BHTN.shape[:3], -1))

    def value_bias(self, weights_BHTS: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor | None:
        if self.values is None:
            return None
        index = self._distances(query_positions, key_positions).expand_as(weights_BHTS)
        shape = (*weights_BHTS.shape[:3], self.max_distance + 1)
        by_distance_BHTN = torch.zeros(shape, dtype=weights_BHTS.dtype, device=weights_BHTS.device)
        by_distance_BHTN = by_distance_BHTN.scatter_add(-1, index, weights_BHTS)
        return by_distance_BHTN @ self.values.weight.to(weights_BHTS.dtype)
