"""`CompositeState`: several states of one layer."""

from __future__ import annotations

from torch import Tensor

from gptkit.nn.cache.state import LayerState

__all__ = ["CompositeState"]


class CompositeState(LayerState):
    """The states of a layer that keeps several, by name: attention beside a recurrence, say.

    ::

        state = CompositeState(tokens=allocation.tokens((2, 64), (2, 64)), memory=allocation.recurrent(((2, 64), dtype)))
        state["tokens"].append(k, v)
    """

    def __init__(self, **parts: LayerState) -> None:
        self.parts = parts

    def __getitem__(self, name: str) -> LayerState:
        return self.parts[name]

    def reorder(self, rows_B: Tensor) -> None:
        for part in self.parts.values():
            part.reorder(rows_B)

    def can_truncate(self, length: int) -> bool:
        return all(part.can_truncate(length) for part in self.parts.values())

    def truncate(self, length: int) -> None:
        for part in self.parts.values():
            part.truncate(length)

    def join(self, other: CompositeState, length: int, capacity: int) -> None:
        for name, part in self.parts.items():
            part.join(other.parts[name], length, capacity)

    def extract(self, row: int, first: int, length: int, capacity: int) -> CompositeState:
        return CompositeState(**{name: part.extract(row, first, length, capacity) for name, part in self.parts.items()})

    def mark(self) -> None:
        for part in self.parts.values():
            part.mark()

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts.values())
