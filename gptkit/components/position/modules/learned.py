"""Runtime of `learned`.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.initial import Initial
from gptkit.nn.position import Position

if TYPE_CHECKING:
    from gptkit.components.position.learned import LearnedSpec

__all__ = ["LearnedPosition"]


class LearnedPosition(Position):
    """Runtime of `learned`."""

    def __init__(self, spec: LearnedSpec, context: BuildContext) -> None:
        super().__init__()
        self.offset = spec.offset
        self.table = nn.Embedding((spec.size or context.context_length) + spec.offset, context.d_model)

    def initial(self) -> dict[str, Initial]:
        return {"table.weight": "embedding"}

    def embed(self, x_BTE: Tensor, positions: Tensor) -> Tensor:
        added: Tensor = self.table(positions + self.offset if self.offset else positions)
        return x_BTE + added
