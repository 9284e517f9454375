"""Distances between queries and keys."""

from __future__ import annotations

from torch import Tensor

__all__ = ["distances"]


def distances(query_positions: Tensor, key_positions: Tensor) -> Tensor:
    """How far back each key lies, (1 or B, 1, T, S) whole numbers; 0 for keys to come, which no query attends.

    Positions are (T,) and (S,), or (B, T) and (B, S).
    """
    distance = (query_positions[..., :, None] - key_positions[..., None, :]).clamp_min(0)
    return distance[:, None] if distance.dim() == 3 else distance[None, None]
