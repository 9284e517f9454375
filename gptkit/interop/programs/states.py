"""The tensors of a cache that a program holds or passes from call to call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from gptkit.model.gpt import GPT
from gptkit.nn.cache.blocks import BlockState
from gptkit.nn.cache.composite import CompositeState
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.state import LayerState, TokenState
from gptkit.nn.cache.store import States

__all__ = ["has_recurrence", "leaves", "tensors_of"]


def has_recurrence(model: GPT) -> bool:
    """Return whether a state of the model is recurrent, so that several tokens are computed in chunks."""
    cache = model.new_cache(1, 1, static=True)
    return any(isinstance(state, RecurrentState) for state in leaves(cache.states))


def leaves(states: Sequence[LayerState] | States) -> Iterator[LayerState]:
    """Yield the states that have tensors, those within composite ones too."""
    for state in states:
        if isinstance(state, CompositeState):
            yield from leaves(list(state.parts.values()))
        else:
            yield state


def tensors_of(state: LayerState) -> Sequence[Tensor]:
    """Return the tensors of a state that `leaves` yields."""
    if isinstance(state, RecurrentState):
        return state.tensors or ()
    assert isinstance(state, (BlockState, TokenState))
    return state.buffers
