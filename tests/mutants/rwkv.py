"""Time mixing and channel mixing of RWKV-4, with one error each."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from gptkit.components.attention.modules.rwkv4 import Rwkv4
from gptkit.components.attention.rwkv4 import Rwkv4Spec
from gptkit.components.block.channel_mixing import ChannelMixingSpec
from gptkit.components.block.modules.channel_mixing import ChannelMixing
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.forward import Forward
from tests.mutants.attention import blind
from tests.mutants.mutant import WithRuntime, become
from tests.mutants.selective import CACHED, PADDING


class WrongTimeMixing(WithRuntime, Rwkv4Spec):
    """Base of time mixing with the runtime class `runtime_class`."""

    d_inner: int | None = Field(20, description="Features of the state.")
    runtime_class: ClassVar[type[Rwkv4]]
    twin_class = Rwkv4Spec


class WrongChannelMixing(WithRuntime, ChannelMixingSpec):
    """Base of channel mixing with the runtime class `runtime_class`."""

    runtime_class: ClassVar[type[ChannelMixing]]
    twin_class = ChannelMixingSpec


class WeighsPadding(WrongTimeMixing):
    """Count padding in the sums of weights."""

    class Runtime(Rwkv4):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, left_padding_B=None))

    name: Literal["weighs-padding"] = "weighs-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = PADDING


class AddsAcrossDocuments(WrongTimeMixing):
    """Keep the sums of one document for the next one."""

    class Runtime(Rwkv4):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, documents_BT=None))

    name: Literal["adds-across-documents"] = "adds-across-documents"
    runtime_class = Runtime
    caught_by = "documents-keep-apart"


class ForgetsTheExponent(WrongTimeMixing):
    """Store the sums without the exponent by which they are divided."""

    class Runtime(Rwkv4):
        class State(RecurrentState):
            def update(self, n_new: int, *tensors: Tensor) -> None:
                super().update(n_new, *tensors[:3], tensors[3] + 1)

        def new_state(self, allocation: Allocation) -> RecurrentState:
            made: RecurrentState = become(super().new_state(allocation), self.State)
            return made

    name: Literal["forgets-the-exponent"] = "forgets-the-exponent"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = CACHED


class FeedsPadding(WrongChannelMixing):
    """Mix padding into the first token."""

    class Runtime(ChannelMixing):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, left_padding_B=None))

    name: Literal["feeds-padding"] = "feeds-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = PADDING


class FeedsOtherDocuments(WrongChannelMixing):
    """Mix the last token of one document into the first of the next."""

    class Runtime(ChannelMixing):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, documents_BT=None))

    name: Literal["feeds-other-documents"] = "feeds-other-documents"
    runtime_class = Runtime
    caught_by = "documents-keep-apart"


class ForgetsTheLastToken(WrongChannelMixing):
    """Decode every token as if it were the first."""

    class Runtime(ChannelMixing):
        class State(RecurrentState):
            def update(self, n_new: int, *tensors: Tensor) -> None:
                super().update(n_new, tensors[0] * 0)

        def new_state(self, allocation: Allocation) -> RecurrentState:
            made: RecurrentState = become(super().new_state(allocation), self.State)
            return made

    name: Literal["forgets-the-last-token"] = "forgets-the-last-token"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = CACHED
