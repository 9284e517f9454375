"""How other libraries lay out what gptkit holds in one tensor.

Shapes: H query heads, K key/value heads, D head size; rows are the first dimension of weights and biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gptkit.kinds.family import Layout

__all__ = ["GROUPED", "HALVES", "HEADS", "SAME", "TRANSPOSED", "Grouped", "Halves", "Heads", "Same", "Transposed"]


class Same(Layout):
    """One tensor, as it is."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return parts[0]

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [tensor]


class Transposed(Layout):
    """One matrix, stored with inputs as rows (GPT-2's `Conv1D`)."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return parts[0].mT if parts[0].dim() == 2 else parts[0]

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [tensor.mT if tensor.dim() == 2 else tensor]


class Heads(Layout):
    """Queries, keys and values apart; here their rows follow each other."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return torch.cat(list(parts))

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        heads = layer.attention.head_shape()
        n_keys = heads.n_kv_heads * heads.d_head
        return list(torch.split(tensor, [heads.n_heads * heads.d_head, n_keys, n_keys]))


class Halves(Layout):
    """Two tensors whose rows follow each other here: gate and up."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return torch.cat(list(parts))

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return list(tensor.chunk(2))


class Grouped(Layout):
    """One tensor that goes through the key/value heads: the queries that share one, its key, its value; (K, H/K + 2, D).

    With as many keys as queries that is (H, 3, D), as GPT-NeoX and BLOOM have it.
    """

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        heads = layer.attention.head_shape()
        shared = heads.n_heads // heads.n_kv_heads
        groups = parts[0].reshape(heads.n_kv_heads, shared + 2, heads.d_head, *parts[0].shape[1:])
        return torch.cat([part.flatten(0, 2) for part in torch.split(groups, [shared, 1, 1], dim=1)])

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        heads = layer.attention.head_shape()
        parts = HEADS.split(tensor, layer)
        groups = [part.reshape(heads.n_kv_heads, -1, heads.d_head, *part.shape[1:]) for part in parts]
        return [torch.cat(groups, dim=1).flatten(0, 2)]


SAME, TRANSPOSED, HEADS, HALVES, GROUPED = Same(), Transposed(), Heads(), Halves(), Grouped()
