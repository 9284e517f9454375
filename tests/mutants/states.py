"""States of cached decoding with one error each."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.components.attention.gated_delta import GatedDeltaSpec
from gptkit.components.attention.modules.gated_delta import GatedDelta
from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention
from gptkit.kinds.context import BuildContext
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.state import LayerState, TokenState
from tests.mutants.attention import Wrong, altered
from tests.mutants.mutant import Mutant, become


class WrongState(Wrong):
    """Base of attentions whose key/value cache has the methods of `state` before its own."""

    state: ClassVar[type]

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made, mixin = super().build(context), self.state

        class Runtime(GroupedQueryAttention):
            def new_state(self, allocation: Allocation) -> LayerState:
                changed: LayerState = altered(super().new_state(allocation), mixin)
                return changed

        changed: GroupedQueryAttention = become(made, Runtime)
        return changed


class TruncateIgnored(WrongState):
    """Keep discarded tokens in the cache."""

    class State:
        def truncate(self, length: int) -> None:
            pass

    name: Literal["truncate-ignored"] = "truncate-ignored"
    state = State
    caught_by = "cache-truncates"
    also = ("cache-marks",)


class TruncatesShort(WrongState):
    """Keep one token too many when truncating into the prompt."""

    class State:
        length: int

        def truncate(self, length: int) -> None:
            super().truncate(length if length >= 9 else length + 1)  # type: ignore[misc]

    name: Literal["truncates-short"] = "truncates-short"
    state = State
    caught_by = "cache-truncates"


class ExtractsOtherRow(WrongState):
    """Copy the last row in place of any other."""

    class State:
        def extract(self, row: int, first: int, length: int, capacity: int) -> Any:
            assert isinstance(self, TokenState)
            last = self.buffers[0].shape[0] - 1
            return super().extract(last, first, length, capacity)  # type: ignore[safe-super]

    name: Literal["extracts-other-row"] = "extracts-other-row"
    state = State
    caught_by = "cache-extracts"


class ExtractsPadding(WrongState):
    """Keep the padding of a copied row."""

    class State:
        def extract(self, row: int, first: int, length: int, capacity: int) -> Any:
            assert isinstance(self, TokenState)
            return super().extract(row, 0, length, capacity)  # type: ignore[safe-super]

    name: Literal["extracts-padding"] = "extracts-padding"
    state = State
    caught_by = "cache-extracts"


class JoinsOffByOne(WrongState):
    """Shift the tokens of appended rows by one."""

    class State:
        def join(self, other: Any, length: int, capacity: int) -> None:
            assert isinstance(self, TokenState)
            rows = self.buffers[0].shape[0]
            super().join(other, length, capacity)  # type: ignore[misc]
            for buffer in self.buffers:
                buffer[rows:] = buffer[rows:].roll(-1, dims=2)

    name: Literal["joins-off-by-one"] = "joins-off-by-one"
    state = State
    caught_by = "cache-joins"


class JoinsAtTheStart(WrongState):
    """Pad the shorter side at its end instead of its start."""

    class State:
        length: int
        buffers: ClassVar[list[Tensor]]

        def join(self, other: Any, length: int, capacity: int) -> None:
            own, others = [buffer.clone() for buffer in self.buffers], other.buffers
            ends = (self.length, other.length)
            super().join(other, length, capacity)  # type: ignore[misc]
            for buffer, one, two in zip(self.buffers, own, others, strict=True):
                n_rows = one.shape[0]
                for rows, side, end in ((buffer[:n_rows], one, ends[0]), (buffer[n_rows:], two, ends[1])):
                    n_kept = min(end, side.shape[2], rows.shape[2])
                    rows[:, :, :n_kept] = side[:, :, :n_kept]

    name: Literal["joins-at-the-start"] = "joins-at-the-start"
    state = State
    caught_by = "cache-joins"


class WrongMemory(Mutant, GatedDeltaSpec):
    """Base of recurrent attentions whose state is `state`."""

    n_heads: int | None = Field(2, description="Heads of queries and keys.")
    d_key: int = Field(8, description="Features of a query and of a key.")
    d_value: int = Field(8, description="Features of a value.")
    state: ClassVar[type[RecurrentState]]
    twin_class = GatedDeltaSpec

    def build(self, context: BuildContext) -> GatedDelta:
        made, state = super().build(context), self.state

        class Runtime(GatedDelta):
            def new_state(self, allocation: Allocation) -> RecurrentState:
                changed: RecurrentState = become(super().new_state(allocation), state)
                return changed

        changed: GatedDelta = become(made, Runtime)
        return changed


class MarkIgnored(WrongMemory):
    """Ignore the marks of a cache."""

    class State(RecurrentState):
        def mark(self) -> None:
            pass

    name: Literal["mark-ignored"] = "mark-ignored"
    state = State
    caught_by = "cache-marks"


class MarkUsedUp(WrongMemory):
    """Mark that is valid for one truncation only."""

    class State(RecurrentState):
        def truncate(self, length: int) -> None:
            back = length < self.length
            super().truncate(length)
            if back:
                self._marks = {0: None}

    name: Literal["mark-used-up"] = "mark-used-up"
    state = State
    caught_by = "cache-marks"


class MarkNotReordered(WrongMemory):
    """Do not reorder the marked copy."""

    class State(RecurrentState):
        def reorder(self, rows_B: Tensor) -> None:
            kept = self._marks
            super().reorder(rows_B)
            self._marks = kept

    name: Literal["mark-not-reordered"] = "mark-not-reordered"
    state = State
    caught_by = "cache-marks"


class ForgetsNothing(WrongMemory):
    """Truncate the length, but not the state."""

    class State(RecurrentState):
        def truncate(self, length: int) -> None:
            self._length = min(self._length, length)

    name: Literal["forgets-nothing"] = "forgets-nothing"
    state = State
    caught_by = "cache-truncates"
    also = ("cache-marks",)


class JoinsSwapped(WrongMemory):
    """Append the rows in front."""

    class State(RecurrentState):
        def join(self, other: RecurrentState, length: int, capacity: int) -> None:
            rows = self.tensors[0].shape[0] if self.tensors else 0
            super().join(other, length, capacity)
            assert self.tensors is not None
            self.tensors = tuple(torch.cat((tensor[rows:], tensor[:rows])) for tensor in self.tensors)

    name: Literal["joins-swapped"] = "joins-swapped"
    state = State
    caught_by = "cache-joins"
