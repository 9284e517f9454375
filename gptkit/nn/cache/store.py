"""`States`: the states of a cache, one per call site."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from copy import copy as copy_of

from torch import Tensor

from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.state import LayerState, Stateful

__all__ = ["States"]


class States:
    """The states of a model's stateful modules: the n-th call of a module within one forward pass has its n-th state.

    States of first calls are allocated at once; those of a module that is called several times per forward pass (looped
    depth) when the call first occurs.

    Args:
        modules: the stateful modules, in the order of their `state_index`.
        allocation: sizes, dtype and device.
    """

    def __init__(self, modules: Sequence[Stateful], allocation: Allocation) -> None:
        self._modules = modules
        self._allocation = allocation
        self._states = {(index, 0): module.new_state(allocation) for index, module in enumerate(modules)}

    def of(self, module: Stateful, call: int) -> LayerState | None:
        """The state of a call site; None where the module keeps none.

        Args:
            call: how many calls of the module preceded this one in the forward pass.
        """
        key = (module.state_index, call)
        if key not in self._states:
            self._states[key] = module.new_state(self._allocation)
        return self._states[key]

    def by_call_site(self) -> Mapping[tuple[int, int], LayerState | None]:
        """The states that exist, by the module's `state_index` and the number of the call."""
        return self._states

    def __iter__(self) -> Iterator[LayerState]:
        return (state for state in self._states.values() if state is not None)

    def reorder(self, rows_B: Tensor) -> None:
        """Replace row i by row ``rows_B[i]`` in every state."""
        for state in self:
            state.reorder(rows_B)
        self._allocation = dataclasses.replace(self._allocation, batch=len(rows_B))

    def extract(self, row: int, first: int, length: int, capacity: int) -> States:
        """Return a copy of the states of one row; see `LayerState.extract`."""
        copy = copy_of(self)
        copy._allocation = dataclasses.replace(self._allocation, batch=1, capacity=capacity)
        copy._states = {
            key: None if state is None else state.extract(row, first, length, capacity)
            for key, state in self._states.items()
        }
        return copy

    def join(self, other: States, length: int, capacity: int) -> None:
        """Append the rows of the states of another cache of the same model; see `LayerState.join`."""
        for (index, call), state in self._states.items():
            if state is not None:
                state.join(other.of(self._modules[index], call), length, capacity)
        batch = self._allocation.batch + other._allocation.batch
        self._allocation = dataclasses.replace(self._allocation, batch=batch, capacity=capacity)
