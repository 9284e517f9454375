"""Layouts of tensors in GGUF files that families do not have.

Shapes: H query heads, D head size, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gptkit.interop.layouts import Heads
from gptkit.kinds.family import Layout

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "DECAYS",
    "LATENT_HEADS",
    "OFFSET",
    "ROWS_OF_GROUPS",
    "SQUEEZED",
    "TURNED_HEADS",
    "VECTOR",
    "Tiled",
    "TurnedHeads",
]


class TurnedHeads(Heads):
    """Separate queries, keys and values for rotary positions that rotate neighboring features.

    The rows of each head of queries and keys are permuted from halves to neighbors: (2, D/2) to (D/2, 2).
    """

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        heads = layer.attention.head_shape()
        q, k, *others = parts
        return super().join([_unturned(q, heads.n_heads), _unturned(k, heads.n_kv_heads), *others], layer)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        heads = layer.attention.head_shape()
        q, k, *others = super().split(tensor, layer)
        return [_turned(q, heads.n_heads), _turned(k, heads.n_kv_heads), *others]


def _turned(tensor: Tensor, n_heads: int) -> Tensor:
    return tensor.reshape(n_heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def _unturned(tensor: Tensor, n_heads: int) -> Tensor:
    return tensor.reshape(n_heads, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


class Offset(Layout):
    """A norm's weight; the file holds it with the offset of 1 that the native norm adds."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return parts[0] - 1

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [tensor.float() + 1]


class Decays(Layout):
    """Logarithms of decay rates; the file holds the negative rates."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return (-parts[0]).log()

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [-tensor.float().exp()]


class Vector(Layout):
    """A matrix of one row, stored as a vector."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return parts[0][None]

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [tensor[0]]


class Squeezed(Layout):
    """The filters of a convolution over time, stored without the dimension of size 1."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return parts[0][:, None]

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [tensor[:, 0]]


class RowsOfGroups(Layout):
    """A norm's weight, stored as a matrix with a row for each group of heads that is normalized separately."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return parts[0].flatten()

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [tensor.reshape(layer.attention.norm_groups or layer.attention.n_groups, -1)]


class LatentHeads(Layout):
    """The up-projection of DeepSeek's latent keys and values, by head: the keys' part, transposed, and the values'."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        import torch

        keys, values = parts
        return torch.cat([keys.mT, values], dim=1).flatten(0, 1)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        attention = layer.attention
        both = tensor.reshape(attention.n_heads, attention.d_nope + attention.d_value, -1)
        return [both[:, : attention.d_nope].mT, both[:, attention.d_nope :]]


class Tiled(Layout):
    """Tensors of linear attention whose value heads are ordered by their index in the group, then by key head.

    The native order is by key head, then by the index in its group. llama.cpp repeats the key heads as a whole, which
    requires the other order.

    Args:
        layout: the native tensor's layout in external tensors.
        parts: for each external tensor, whether its rows are value heads; "after keys" for those after queries and keys.
        columns: whether the columns are value heads in place of rows.
        layer: the layer of a rule that names its index.
    """

    def __init__(
        self, layout: Layout, parts: Sequence[bool | str], *, columns: bool = False, layer: Any | None = None
    ) -> None:
        self.layout, self.parts, self.columns, self.layer = layout, parts, columns, layer

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return self.layout.join([self._moved(part, how, layer, True) for part, how in self._pairs(parts)], layer)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [self._moved(part, how, layer, False) for part, how in self._pairs(self.layout.split(tensor, layer))]

    def _pairs(self, parts: Sequence[Tensor]) -> Sequence[tuple[Tensor, bool | str]]:
        return list(zip(parts, self.parts, strict=True))

    def _moved(self, part: Tensor, how: bool | str, layer: Any, back: bool) -> Tensor:
        import torch

        if not how:
            return part
        attention = (self.layer or layer).attention
        n_groups, n_values = attention.n_heads, attention.n_value_heads
        if self.columns:
            return self._reordered(part.mT, n_groups, n_values, back).mT
        if how == "after keys":
            n_keys = 2 * n_groups * attention.d_key
            return torch.cat([part[:n_keys], self._reordered(part[n_keys:], n_groups, n_values, back)])
        return self._reordered(part, n_groups, n_values, back)

    def _reordered(self, rows: Tensor, n_groups: int, n_values: int, back: bool) -> Tensor:
        first, second = (n_values // n_groups, n_groups) if back else (n_groups, n_values // n_groups)
        return rows.reshape(first, second, -1, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)


TURNED_HEADS, OFFSET, DECAYS, VECTOR = TurnedHeads(), Offset(), Decays(), Vector()
SQUEEZED, LATENT_HEADS, ROWS_OF_GROUPS = Squeezed(), LatentHeads(), RowsOfGroups()
