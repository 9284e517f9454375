"""Recurrences with a decay of each feature or exponential gates, with one error each."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.components.attention.mamba1 import Mamba1Spec
from gptkit.components.attention.mlstm import MLstmSpec
from gptkit.components.attention.modules.mamba1 import HeadLinear, Mamba1
from gptkit.components.attention.modules.mlstm import MLstm
from gptkit.components.attention.modules.rg_lru import RgLru
from gptkit.components.attention.rg_lru import RgLruSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.forward import Forward
from tests.mutants.attention import DECODING, blind
from tests.mutants.mutant import ANYTHING, Mutant, WithRuntime, become

PADDING = ("uneven-prompts-cached", "cache-joins", "cache-extracts")
CACHED = (*tuple(name for name in DECODING if name != "cached-equals-full"), "cache-extracts")


class WrongMamba1(WithRuntime, Mamba1Spec):
    """Base of Mamba layers with the runtime class `runtime_class`."""

    d_inner: int | None = Field(20, description="Features of the values.")
    d_state: int = Field(6, description="Features of a key.")
    runtime_class: ClassVar[type[Mamba1]]
    twin_class = Mamba1Spec


class WrongRgLru(WithRuntime, RgLruSpec):
    """Base of gated linear recurrences with the runtime class `runtime_class`."""

    n_heads: int = Field(2, description="Blocks of features.")
    runtime_class: ClassVar[type[RgLru]]
    twin_class = RgLruSpec


class ShiftedState(RecurrentState):
    """Store the features of the state in another order."""

    def update(self, n_new: int, *tensors: Tensor) -> None:
        super().update(n_new, tensors[0], tensors[1].roll(1, dims=-1))


def _shifted(state: RecurrentState) -> RecurrentState:
    made: RecurrentState = become(state, ShiftedState)
    return made


class SelectsPadding(WrongMamba1):
    """Add padding to the state."""

    class Runtime(Mamba1):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, left_padding_B=None))

    name: Literal["selects-padding"] = "selects-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = PADDING


class SelectsAcrossDocuments(WrongMamba1):
    """Keep the state of one document for the next one."""

    class Runtime(Mamba1):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, documents_BT=None))

    name: Literal["selects-across-documents"] = "selects-across-documents"
    runtime_class = Runtime
    caught_by = "documents-keep-apart"


class StateFeaturesShifted(WrongMamba1):
    """Store the state with its features in another order."""

    class Runtime(Mamba1):
        def new_state(self, allocation: Allocation) -> RecurrentState:
            return _shifted(super().new_state(allocation))

    name: Literal["state-features-shifted"] = "state-features-shifted"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = CACHED


class WrongHeads(Mutant, Mamba1Spec):
    """Base of Mamba layers of two heads, whose step sizes, keys and queries a module of `select_class` returns."""

    d_inner: int | None = Field(20, description="Features of the values.")
    n_heads: int = Field(2, description="Heads of values.")
    select_class: ClassVar[type[HeadLinear]]
    twin_class = Mamba1Spec

    def build(self, context: BuildContext) -> Any:
        made = super().build(context)
        become(made.select, self.select_class)
        return made


class SelectsByTheNextToken(WrongHeads):
    """Compute step sizes, keys and queries of each head from the next token."""

    class Wrong(HeadLinear):
        def forward(self, x_BTHI: Tensor) -> Tensor:
            return super().forward(x_BTHI.roll(-1, dims=1))

    name: Literal["selects-by-the-next-token"] = "selects-by-the-next-token"  # type: ignore[assignment]
    select_class = Wrong
    caught_by = "no-future-leak"
    also = ANYTHING


class SelectsByAnotherRow(WrongHeads):
    """Compute step sizes, keys and queries of each head from another row."""

    class Wrong(HeadLinear):
        def forward(self, x_BTHI: Tensor) -> Tensor:
            return super().forward(x_BTHI.roll(1, dims=0))

    name: Literal["selects-by-another-row"] = "selects-by-another-row"  # type: ignore[assignment]
    select_class = Wrong
    caught_by = "rows-are-independent"
    also = ANYTHING


class SelectsWithoutGradient(WrongHeads):
    """Compute the matrices of the heads without gradients."""

    class Wrong(HeadLinear):
        def forward(self, x_BTHI: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x_BTHI)

    name: Literal["selects-without-gradient"] = "selects-without-gradient"  # type: ignore[assignment]
    select_class = Wrong
    caught_by = "gradients"
    also = ANYTHING


class StateHeadsShifted(WrongMamba1):
    """Store the state with its heads in another order."""

    class Runtime(Mamba1):
        class State(RecurrentState):
            def update(self, n_new: int, *tensors: Tensor) -> None:
                super().update(n_new, tensors[0], tensors[1].roll(10, dims=1))

        def new_state(self, allocation: Allocation) -> RecurrentState:
            made: RecurrentState = become(super().new_state(allocation), self.State)
            return made

    name: Literal["state-heads-shifted"] = "state-heads-shifted"
    n_heads: int = Field(2, description="Heads of values.")
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = CACHED


class AveragesPadding(WrongRgLru):
    """Add padding to the moving average."""

    class Runtime(RgLru):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, left_padding_B=None))

    name: Literal["averages-padding"] = "averages-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = PADDING


class AveragesAcrossDocuments(WrongRgLru):
    """Keep the moving average of one document for the next one."""

    class Runtime(RgLru):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, documents_BT=None))

    name: Literal["averages-across-documents"] = "averages-across-documents"
    runtime_class = Runtime
    caught_by = "documents-keep-apart"


class AveragesShifted(WrongRgLru):
    """Store the moving averages in another order."""

    class Runtime(RgLru):
        def new_state(self, allocation: Allocation) -> RecurrentState:
            return _shifted(super().new_state(allocation))

    name: Literal["averages-shifted"] = "averages-shifted"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = CACHED


class WrongMLstm(WithRuntime, MLstmSpec):
    """Base of mLSTM layers with the runtime class `runtime_class`."""

    n_heads: int = Field(2, description="Number of heads.")
    d_key: int | None = Field(6, description="Features of a key.")
    d_value: int | None = Field(8, description="Features of a value.")
    runtime_class: ClassVar[type[MLstm]]
    twin_class = MLstmSpec


class GatesPadding(WrongMLstm):
    """Add padding to the matrices."""

    class Runtime(MLstm):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, left_padding_B=None))

    name: Literal["gates-padding"] = "gates-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = PADDING


class GatesAcrossDocuments(WrongMLstm):
    """Keep the state of one document for the next one."""

    class Runtime(MLstm):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, documents_BT=None))

    name: Literal["gates-across-documents"] = "gates-across-documents"
    runtime_class = Runtime
    caught_by = "documents-keep-apart"


class ForgetsTheLargestExponent(WrongMLstm):
    """Store the state without the exponent by which it is divided."""

    class Runtime(MLstm):
        class State(RecurrentState):
            def update(self, n_new: int, *tensors: Tensor) -> None:
                super().update(n_new, *tensors[:2], tensors[2] * 0)

        def new_state(self, allocation: Allocation) -> RecurrentState:
            made: RecurrentState = become(super().new_state(allocation), self.State)
            return made

    name: Literal["forgets-the-largest-exponent"] = "forgets-the-largest-exponent"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = CACHED
