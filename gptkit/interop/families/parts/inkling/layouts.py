"""Layouts of Inkling's tables and experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from gptkit.kinds.family import Layout

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FirstRows", "GatesWithShared", "WithShared"]


class FirstRows(Layout):
    """The first rows of a tensor, which may have further ones: those of token ids that no text has.

    Args:
        n_rows: the number of rows that are read; None for all.
    """

    more_rows: ClassVar[bool] = True

    def __init__(self, n_rows: int | None) -> None:
        self.n_rows = n_rows

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        return parts[0][: self.n_rows]

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        return [tensor]


class WithShared(Layout):
    """Chosen experts as one stack, and shared ones, the last, as another."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        import torch

        return torch.cat(list(parts))

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        import torch

        n_shared = layer.feedforward.router.always
        return list(torch.split(tensor, [len(tensor) - n_shared, n_shared]))


class GatesWithShared(WithShared):
    """The same of gates and up-projections, which shared experts have as a stack each."""

    def join(self, parts: Sequence[Tensor], layer: Any) -> Tensor:
        import torch

        chosen, *shared = parts
        return super().join([chosen, torch.cat(shared, dim=1)], layer)

    def split(self, tensor: Tensor, layer: Any) -> list[Tensor]:
        chosen, shared = super().split(tensor, layer)
        return [chosen, *shared.chunk(2, dim=1)]
