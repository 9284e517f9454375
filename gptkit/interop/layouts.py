"""Layouts of external tensors that correspond to one native tensor.

Shapes: H query heads, K key/value heads, D head size; rows are the first dimension of weights and biases.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from gptkit.kinds.family import Layout

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ALTERNATING",
    "FLAT",
    "GATED_HEADS",
    "GATES_FIRST",
    "GATES_LAST",
    "GROUPED",
    "HALVES",
    "HEADS",
    "LINEAR_HEADS",
    "MIXED_HEADS",
    "MIXED_RATES",
    "QUARTERS",
    "QUERIES_AND_KEYS",
    "SAME",
    "THIRDS",
    "TRANSPOSED",
    "TRANSPOSED_ALTERNATING",
    "Alternating",
    "Chain",
    "Flat",
    "GatesFirst",
    "GatesLast",
    "Grouped",
    "Halves",
    "Heads",
    "InGroups",
    "LinearHeads",
    "Quarters",
    "Same",
    "Separate",
    "Stack",
    "Thirds",
    "Transposed",
    "Within",
]


def _cat(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    # Families are listed without torch.
    import torch

    return torch.cat(list(parts), dim)


def _stack(parts: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack(list(parts))


def _split(tensor: Tensor, sizes: list[int], dim: int = 0) -> tuple[Tensor, ...]:
    import torch

    return torch.split(tensor, sizes, dim)


class Same(Layout):
    """One tensor, unchanged."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return parts[0]

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [tensor]


class Flat(Layout):
    """One vector, stored with further dimensions of size 1: `before` leading ones, and `after` trailing ones."""

    def __init__(self, before: int = 1, after: int = 0) -> None:
        self.before, self.after = before, after

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return parts[0].flatten()

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [tensor.reshape(*[1] * self.before, -1, *[1] * self.after)]


class Transposed(Layout):
    """One matrix, stored transposed, with inputs as rows (GPT-2's `Conv1D`)."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return parts[0].mT if parts[0].dim() == 2 else parts[0]

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [tensor.mT if tensor.dim() == 2 else tensor]


class Heads(Layout):
    """Separate query, key and value projections, and that of an output gate if the attention has one.

    The native tensor is their concatenation by rows.

    Args:
        values: whether there is a projection of values; without it, they are the keys.
    """

    def __init__(self, values: bool = True) -> None:
        self.values = values

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return _cat(parts)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        heads = layer.attention.head_shape()
        d_value = getattr(layer.attention, "d_value", None) or heads.d_head
        values = [heads.n_kv_heads * d_value] if self.values else []
        sizes = [heads.n_heads * heads.d_head, heads.n_kv_heads * heads.d_head, *values]
        gate = [heads.n_heads * d_value] if tensor.shape[0] > sum(sizes) else []
        return list(_split(tensor, [*sizes, *gate]))


class Halves(Layout):
    """Separate gate and up-projections; the native tensor is their concatenation by rows."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return _cat(parts)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return list(tensor.chunk(2))


class Thirds(Layout):
    """Three tensors that are concatenated by rows, cut anywhere; an export cuts equal parts, as transformers does."""

    any_rows: ClassVar[bool] = True

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return _cat(parts)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return list(tensor.chunk(3))


class InGroups(Layout):
    """One tensor whose rows are ordered by group, then by part; the native tensor is ordered by part, then by group."""

    @abstractmethod
    def groups(self, layer: Any) -> tuple[int, list[int]]:
        """Return the number of groups, and the number of rows of each part of a group."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        n_groups, sizes = self.groups(layer)
        rows = parts[0].reshape(n_groups, sum(sizes), *parts[0].shape[1:])
        return _cat([part.flatten(0, 1) for part in _split(rows, sizes, dim=1)])

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        n_groups, sizes = self.groups(layer)
        parts = _split(tensor, [n_groups * size for size in sizes])
        groups = [part.reshape(n_groups, -1, *part.shape[1:]) for part in parts]
        return [_cat(groups, dim=1).flatten(0, 1)]


class Grouped(InGroups):
    """One tensor ordered by key/value head: the queries that share it, its key, its value.

    With as many keys as queries that is (H, 3, D), the layout of GPT-NeoX and BLOOM.
    """

    def groups(self, layer: Any) -> tuple[int, list[int]]:
        heads = layer.attention.head_shape()
        return heads.n_kv_heads, [heads.n_heads // heads.n_kv_heads * heads.d_head, heads.d_head, heads.d_head]


class Quarters(InGroups):
    """One tensor ordered by quarter of the heads: their queries, then values, then keys (CodeGen)."""

    def groups(self, layer: Any) -> tuple[int, list[int]]:
        heads = layer.attention.head_shape()
        return 4, [heads.n_heads * heads.d_head // 4] * 3

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        q, v, k = super().join(parts, layer).chunk(3)
        return _cat([q, k, v])

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        q, k, v = tensor.chunk(3)
        return super().split(_cat([q, v, k]), layer)


class GatesLast(Layout):
    """Two tensors of linear attention: queries, keys and values, then gates of the size of the values."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return _cat(parts)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        attention = layer.attention
        n_gates = attention.n_value_heads * attention.d_value
        return list(_split(tensor, [tensor.shape[0] - n_gates, n_gates]))


class GatesFirst(Layout):
    """One tensor of output gates, queries, keys and values, of equal sizes; here the gates come last (HRM-Text)."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        n_gates = parts[0].shape[0] // 4
        return _cat([parts[0][n_gates:], parts[0][:n_gates]])

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        n_gates = tensor.shape[0] // 4
        return [_cat([tensor[-n_gates:], tensor[:-n_gates]])]


class LinearHeads(Layout):
    """Four tensors of linear attention: queries, keys, values, gates."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return _cat(parts)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        attention = layer.attention
        n_heads = getattr(attention, "n_value_heads", None) or attention.n_heads
        n_keys, n_values = attention.n_heads * attention.d_key, n_heads * attention.d_value
        return list(_split(tensor, [n_keys, n_keys, n_values, n_values]))


class MixedHeads(InGroups):
    """Queries, keys, values and gates of linear attention, ordered by key head."""

    def groups(self, layer: Any) -> tuple[int, list[int]]:
        attention = layer.attention
        d_values = attention.n_value_heads // attention.n_heads * attention.d_value
        return attention.n_heads, [attention.d_key, attention.d_key, d_values, d_values]


class MixedRates(InGroups):
    """Write and decay rates of linear attention, ordered by key head."""

    def groups(self, layer: Any) -> tuple[int, list[int]]:
        shared = layer.attention.n_value_heads // layer.attention.n_heads
        return layer.attention.n_heads, [shared, shared]


class GatedHeads(Layout):
    """Queries with each head's gate behind it, keys and values; here all gates come last."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        heads = layer.attention.head_shape()
        both = parts[0].reshape(heads.n_heads, 2, heads.d_head, *parts[0].shape[1:])
        return _cat([both[:, 0].flatten(0, 1), *parts[1:], both[:, 1].flatten(0, 1)])

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        heads = layer.attention.head_shape()
        n_queries, n_keys = heads.n_heads * heads.d_head, heads.n_kv_heads * heads.d_head
        q, k, v, gate = _split(tensor, [n_queries, n_keys, n_keys, n_queries])
        both = [part.reshape(heads.n_heads, 1, heads.d_head, *part.shape[1:]) for part in (q, gate)]
        return [_cat(both, dim=1).flatten(0, 2), k, v]


class Alternating(Layout):
    """One tensor whose rows alternate between gate and up-projection; the native tensor has the gate's rows first."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return _cat([parts[0][0::2], parts[0][1::2]])

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [_cat([part.unsqueeze(1) for part in tensor.chunk(2)], dim=1).flatten(0, 1)]


class Chain(Layout):
    """Layouts one after the other, each of one tensor, the first one closest to the external tensor."""

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


class Stack(Layout):
    """Stacks of all experts on both sides; each expert's slice has the layout given."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return _stack([self.layout.join(slices, layer) for slices in zip(*parts, strict=True)])

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        each = [self.layout.split(part, layer) for part in tensor]
        return [_stack(slices) for slices in zip(*each, strict=True)]


class Within(Layout):
    """The layout of a tensor of an attention that is in a field of the layer's attention (`hybrid`)."""

    def __init__(self, layout: Layout, field: str) -> None:
        self.layout = layout
        self.field = field

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return self.layout.join(parts, self._inner(layer))

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return self.layout.split(tensor, self._inner(layer))

    def _inner(self, layer: Any) -> Any:
        return layer.model_copy(update={"attention": getattr(layer.attention, self.field)})


class Separate(Layout):
    """A native stack of all experts, and external tensors of each expert in turn, which have the layout given."""

    def __init__(self, layout: Layout, n_experts: int) -> None:
        self.layout = layout
        self.n_experts = n_experts

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        size = len(parts) // self.n_experts
        firsts = range(0, len(parts), size)
        return _stack([self.layout.join(parts[first : first + size], layer) for first in firsts])

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [part for slice_ in tensor for part in self.layout.split(slice_, layer)]


QUERIES_AND_KEYS = Heads(values=False)
SAME, FLAT, TRANSPOSED, HEADS, HALVES, GROUPED = Same(), Flat(), Transposed(), Heads(), Halves(), Grouped()
GATED_HEADS, MIXED_HEADS, MIXED_RATES = GatedHeads(), MixedHeads(), MixedRates()
LINEAR_HEADS, GATES_LAST, THIRDS, QUARTERS = LinearHeads(), GatesLast(), Thirds(), Quarters()
GATES_FIRST = GatesFirst()
ALTERNATING, TRANSPOSED_ALTERNATING = Alternating(), Chain(TRANSPOSED, Alternating())
