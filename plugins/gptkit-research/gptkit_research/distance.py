"""Distances between queries and keys."""

from __future__ import annotations

from torch import Tensor

__all__ = ["distances"]


def distances(query_positions: Tensor, key_positions: Tensor) -> Tensor:
    """Return the distance from each query back to each key, (1 or B, 1, T, S) integers; 0 for later keys, which are masked.

    Positions are (T,) and (S,), or (B, T) and (B, S).
    """
    distance = (query_positions[..., :, None] - key_positions[..., None, :]).clamp_min(0)
    return distance[:, None] if distance.dim() == 3 else distance[None, None]
