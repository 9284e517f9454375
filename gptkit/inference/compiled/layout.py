"""Layout of a cache: the tensors of its states in a fixed order, as inputs of a compiled decode step.

Shapes: B batch, H heads, C capacity, S keys in view, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gptkit.core.errors import StateError
from gptkit.model.cache import Cache
from gptkit.nn.cache.blocks import BlockState
from gptkit.nn.cache.composite import CompositeState
from gptkit.nn.cache.growing import GrowingState
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.sliding import SlidingState
from gptkit.nn.cache.state import LayerState, Stateful
from gptkit.nn.cache.traced import TracedState

__all__ = ["GRANULE", "TracedCache", "View", "dynamic_dimensions", "has_room", "layout", "leaves", "tensors_of", "views"]

GRANULE = 64
"""Keys in view are rounded up to a multiple of this number, so that kernels have whole vectors to work on."""

Leaf = GrowingState | SlidingState | RecurrentState | BlockState


@dataclass(frozen=True)
class View:
    """What the token states of one window have in common at a step.

    Attributes:
        window: the declared window; None for states that keep every token.
        used: entries that are filled.
        n_keys: S, entries in view, those of the new tokens included.
    """

    window: int | None
    used: int
    n_keys: int


def leaves(cache: Cache) -> list[Leaf]:
    """The states of a cache that hold tensors, those within composite ones included.

    Raises:
        StateError: a state of a form that cannot be compiled.
    """
    return [leaf for state in cache.states for leaf in _leaves(state)]


def _leaves(state: LayerState) -> Iterator[Leaf]:
    if isinstance(state, CompositeState):
        for part in state.parts.values():
            yield from _leaves(part)
    elif isinstance(state, Leaf):
        yield state
    else:
        raise StateError(f"a decode step with a state of the class {type(state).__name__} cannot be compiled")


def layout(cache: Cache) -> list[list[str]]:
    """The form of each leaf, as plain data: equal layouts can use the same compiled step."""
    return [[type(leaf).__name__, str(_window(leaf))] for leaf in leaves(cache)]


def _window(leaf: Leaf) -> int | None:
    return leaf.declared_window if isinstance(leaf, SlidingState) else None


def has_room(cache: Cache, n_tokens: int, width: int) -> bool:
    """Whether a step of `width` tokens can process the next `n_tokens` of each row.

    All of its tokens are written behind those that are held, so there must be room for them. A recurrent state cannot
    discard those by which the tokens were filled up; entries of blocks that have them are written again.
    """
    if cache.length + width > cache.capacity:
        return False
    try:
        states = leaves(cache)
    except StateError:
        return False
    if n_tokens != width and any(isinstance(leaf, RecurrentState) for leaf in states):
        return False
    return all(leaf.has_room(width) for leaf in states if isinstance(leaf, GrowingState | SlidingState))


def views(states: list[Leaf], width: int) -> dict[int | None, View]:
    """The view of each window, in the order of the states.

    Args:
        states: the states.
        width: number of new tokens.

    Raises:
        StateError: states of one window hold different numbers of tokens.
    """
    by_window: dict[int | None, View] = {}
    for leaf in states:
        if isinstance(leaf, RecurrentState | BlockState):
            continue
        window, used = _window(leaf), leaf.used
        known = by_window.get(window)
        if known is None:
            size = leaf.buffers[0].shape[2]
            by_window[window] = View(window, used, min(size, -(-(used + width) // GRANULE) * GRANULE))
        elif known.used != used:
            raise StateError("a decode step of layers that hold different numbers of tokens cannot be compiled")
    return by_window


def dynamic_dimensions(states: list[Leaf], *, many: bool) -> list[list[dict[int, Any]]]:
    """Which dimensions of each leaf's tensors are symbols: the capacity, and the batch of several rows."""
    auto = torch.export.Dim.AUTO
    rows = {0: auto} if many else {}

    def dimensions(leaf: Leaf) -> dict[int, Any]:
        if isinstance(leaf, RecurrentState):
            return dict(rows)
        return {**rows, (1 if isinstance(leaf, BlockState) else 2): auto}

    return [[dimensions(leaf) for _ in tensors_of(leaf)] for leaf in states]


def tensors_of(leaf: Leaf) -> list[Tensor]:
    """The tensors of a leaf, contiguous, which the compiled step writes in place."""
    if not isinstance(leaf, RecurrentState):
        return leaf.buffers
    if leaf.tensors is None:
        raise StateError("a recurrent state that has read no token cannot be compiled")
    if not all(tensor.is_contiguous() for tensor in leaf.tensors):
        leaf.tensors = tuple(tensor.contiguous() for tensor in leaf.tensors)
    return list(leaf.tensors)


class TracedCache:
    """The cache of a model while its decode step is traced: states whose bookkeeping is the host's.

    Args:
        cache: the cache whose form is traced.
        offset: 0-d tensor, the number of tokens of a row, padding included.
        left_padding_B: number of padding tokens at the start of each row.
        marks: for each window a tensor of S elements, and the 0-d tensor `used`.
        tensors: the tensors of each leaf.
    """

    def __init__(
        self,
        cache: Cache,
        offset: Tensor,
        left_padding_B: Tensor,
        marks: Mapping[int | None, tuple[Tensor, Tensor]],
        tensors: list[list[Tensor]],
    ) -> None:
        self.offset = offset
        self.left_padding_B = left_padding_B
        self.prefix_B = None
        self.keeps_hidden = cache.keeps_hidden
        self.states = self
        self._vectors = cache.vectors
        self._given = iter(tensors)
        firsts = {window: 0 if window is None else offset - used for window, (_, used) in marks.items()}

        def traced(state: LayerState) -> LayerState:
            if isinstance(state, CompositeState):
                return CompositeState(**{name: traced(part) for name, part in state.parts.items()})
            own = next(self._given)
            if isinstance(state, RecurrentState):
                return RecurrentState(*own, offset=offset)
            if isinstance(state, BlockState):
                return state.with_buffers(own)
            assert isinstance(state, GrowingState | SlidingState)
            mark, used = marks[_window(state)]
            return TracedState(own, mark.shape[0], used, firsts[_window(state)])

        self._states = {key: None if state is None else traced(state) for key, state in cache.states.by_call_site().items()}

    def of(self, module: Stateful, call: int) -> LayerState | None:
        """As `States.of`."""
        return self._states[module.state_index, call]

    def keep_hidden(self, x_BTE: Tensor) -> None:
        """As `Cache.keep_hidden`."""
        assert self._vectors is not None
        state = self.of(self._vectors, 0)
        assert isinstance(state, TracedState)
        state.append(x_BTE[:, None])

    def begin(self, ids_BT: Tensor) -> Tensor:
        """As `Cache.begin`."""
        return ids_BT

    def advance(self, n_tokens: int) -> None:
        """Nothing: the host counts."""
