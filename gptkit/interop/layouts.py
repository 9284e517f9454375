"""How other libraries lay out what gptkit holds in one tensor.

Shapes: H query heads, K key/value heads, D head size; rows are the first dimension of weights and biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gptkit.kinds.family import Layout

__all__ = [
    "ALTERNATING",
    "GATED_HEADS",
    "GROUPED",
    "HALVES",
    "HEADS",
    "MIXED_HEADS",
    "MIXED_RATES",
    "SAME",
    "TRANSPOSED",
    "TRANSPOSED_ALTERNATING",
    "Alternating",
    "Chain",
    "Grouped",
    "Halves",
    "Heads",
    "InGroups",
    "Same",
    "Transposed",
]


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


class InGroups(Layout):
    """One tensor whose rows go through groups, each with all parts of it; here all groups' first parts come first."""

    def groups(self, layer: Any) -> tuple[int, list[int]]:
        """How many groups there are, and the rows of each part of one."""
        raise NotImplementedError

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        n_groups, sizes = self.groups(layer)
        rows = parts[0].reshape(n_groups, sum(sizes), *parts[0].shape[1:])
        return torch.cat([part.flatten(0, 1) for part in torch.split(rows, sizes, dim=1)])

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        n_groups, sizes = self.groups(layer)
        parts = torch.split(tensor, [n_groups * size for size in sizes])
        groups = [part.reshape(n_groups, -1, *part.shape[1:]) for part in parts]
        return [torch.cat(groups, dim=1).flatten(0, 1)]


class Grouped(InGroups):
    """One tensor that goes through the key/value heads: the queries that share one, its key, its value.

    With as many keys as queries that is (H, 3, D), as GPT-NeoX and BLOOM have it.
    """

    def groups(self, layer: Any) -> tuple[int, list[int]]:
        heads = layer.attention.head_shape()
        return heads.n_kv_heads, [heads.n_heads // heads.n_kv_heads * heads.d_head, heads.d_head, heads.d_head]


class MixedHeads(InGroups):
    """Queries, keys, values and gates of linear attention, going through the key heads."""

    def groups(self, layer: Any) -> tuple[int, list[int]]:
        attention = layer.attention
        d_values = attention.n_value_heads // attention.n_heads * attention.d_value
        return attention.n_heads, [attention.d_key, attention.d_key, d_values, d_values]


class MixedRates(InGroups):
    """What linear attention writes and forgets by, going through the key heads."""

    def groups(self, layer: Any) -> tuple[int, list[int]]:
        shared = layer.attention.n_value_heads // layer.attention.n_heads
        return layer.attention.n_heads, [shared, shared]


class GatedHeads(Layout):
    """Queries with each head's gate behind it, keys and values; here all gates come last."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        heads = layer.attention.head_shape()
        both = parts[0].reshape(heads.n_heads, 2, heads.d_head, *parts[0].shape[1:])
        return torch.cat([both[:, 0].flatten(0, 1), *parts[1:], both[:, 1].flatten(0, 1)])

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        heads = layer.attention.head_shape()
        n_queries, n_keys = heads.n_heads * heads.d_head, heads.n_kv_heads * heads.d_head
        q, k, v, gate = torch.split(tensor, [n_queries, n_keys, n_keys, n_queries])
        both = [part.reshape(heads.n_heads, 1, heads.d_head, *part.shape[1:]) for part in (q, gate)]
        return [torch.cat(both, dim=1).flatten(0, 2), k, v]


class Alternating(Layout):
    """One tensor whose rows are the gate's and the other factor's in turn; here the gate's come first."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return torch.cat([parts[0][0::2], parts[0][1::2]])

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [torch.stack(tensor.chunk(2), dim=1).flatten(0, 1)]


class Chain(Layout):
    """Layouts one after the other, each of one tensor, the first one nearest to theirs."""

    def __init__(self, *layouts: Layout) -> None:
        self.layouts = layouts

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        for layout in self.layouts:
            parts = [layout.join(parts, layer)]
        return parts[0]

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        for layout in reversed(self.layouts):
            (tensor,) = layout.split(tensor, layer)
        return [tensor]


SAME, TRANSPOSED, HEADS, HALVES, GROUPED = Same(), Transposed(), Heads(), Halves(), Grouped()
GATED_HEADS, MIXED_HEADS, MIXED_RATES = GatedHeads(), MixedHeads(), MixedRates()
ALTERNATING, TRANSPOSED_ALTERNATING = Alternating(), Chain(TRANSPOSED, Alternating())
