"""State-space models and convolutions with one error each."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from gptkit.components.attention.kimi_delta import KimiDeltaSpec
from gptkit.components.attention.lightning import LightningSpec
from gptkit.components.attention.mamba2 import Mamba2Spec
from gptkit.components.attention.modules.kimi_delta import KimiDelta
from gptkit.components.attention.modules.lightning import Lightning
from gptkit.components.attention.modules.mamba2 import Mamba2
from gptkit.components.attention.modules.short_conv import ShortConv
from gptkit.components.attention.short_conv import ShortConvSpec
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.forward import Forward
from tests.mutants.attention import DECODING, blind
from tests.mutants.mutant import WithRuntime, become


class WrongMamba2(WithRuntime, Mamba2Spec):
    """Base of Mamba-2 layers with the runtime class `runtime`."""

    n_heads: int | None = Field(2, description="Number of heads.")
    d_head: int = Field(8, description="Features of a head's value.")
    d_state: int = Field(6, description="Features of a key.")
    runtime_class: ClassVar[type[Mamba2]]
    twin_class = Mamba2Spec


class ReadsPadding(WrongMamba2):
    """Add padding to the state."""

    class Runtime(Mamba2):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, left_padding_B=None))

    name: Literal["reads-padding"] = "reads-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = ("uneven-prompts-cached", "cache-joins", "cache-extracts")


class NeverResets(WrongMamba2):
    """Keep the state of one document for the next one."""

    class Runtime(Mamba2):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, documents_BT=None))

    name: Literal["never-resets"] = "never-resets"
    runtime_class = Runtime
    caught_by = "documents-keep-apart"


class TailShifted(WrongMamba2):
    """Store the inputs of the convolution in another order."""

    class Runtime(Mamba2):
        class State(RecurrentState):
            def update(self, n_new: int, *tensors: Tensor) -> None:
                super().update(n_new, tensors[0].roll(1, dims=1), tensors[1])

        def new_state(self, allocation: Allocation) -> RecurrentState:
            made: RecurrentState = become(super().new_state(allocation), self.State)
            return made

    name: Literal["tail-shifted"] = "tail-shifted"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = (*tuple(name for name in DECODING if name != "cached-equals-full"), "cache-extracts")


class WrongShortConv(WithRuntime, ShortConvSpec):
    """Base of gated convolutions with the runtime class `runtime_class`."""

    runtime_class: ClassVar[type[ShortConv]]
    twin_class = ShortConvSpec


class ConvolvesPadding(WrongShortConv):
    """Convolve padding too."""

    class Runtime(ShortConv):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, left_padding_B=None))

    name: Literal["convolves-padding"] = "convolves-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"


class ConvolvesAcrossDocuments(WrongShortConv):
    """Convolve the last tokens of one document with the first of the next."""

    class Runtime(ShortConv):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, documents_BT=None))

    name: Literal["convolves-across-documents"] = "convolves-across-documents"
    runtime_class = Runtime
    caught_by = "documents-keep-apart"


class ConvTailShifted(WrongShortConv):
    """Store the inputs of the convolution in another order."""

    class Runtime(ShortConv):
        class State(RecurrentState):
            def update(self, n_new: int, *tensors: Tensor) -> None:
                super().update(n_new, *(tensor.roll(1, dims=1) for tensor in tensors))

        def new_state(self, allocation: Allocation) -> RecurrentState:
            made: RecurrentState = become(super().new_state(allocation), self.State)
            return made

    name: Literal["conv-tail-shifted"] = "conv-tail-shifted"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = (*tuple(name for name in DECODING if name != "cached-equals-full"), "cache-extracts")


class WrongKimiDelta(WithRuntime, KimiDeltaSpec):
    """Base of delta attentions with a decay of every feature, with the runtime class `runtime_class`."""

    n_heads: int | None = Field(2, description="Number of heads.")
    d_key: int = Field(8, description="Features of a key.")
    d_value: int = Field(6, description="Features of a value.")
    runtime_class: ClassVar[type[KimiDelta]]
    twin_class = KimiDeltaSpec


class WritesPadding(WrongKimiDelta):
    """Write padding into the state."""

    class Runtime(KimiDelta):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, left_padding_B=None))

    name: Literal["writes-padding"] = "writes-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = ("uneven-prompts-cached", "cache-joins", "cache-extracts")


class CarriesDocuments(WrongKimiDelta):
    """Keep the state of one document for the next one."""

    class Runtime(KimiDelta):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, documents_BT=None))

    name: Literal["carries-documents"] = "carries-documents"
    runtime_class = Runtime
    caught_by = "documents-keep-apart"


class FeaturesShifted(WrongKimiDelta):
    """Store the key features of the state in another order."""

    class Runtime(KimiDelta):
        class State(RecurrentState):
            def update(self, n_new: int, *tensors: Tensor) -> None:
                super().update(n_new, tensors[0], tensors[1].roll(1, dims=2))

        def new_state(self, allocation: Allocation) -> RecurrentState:
            made: RecurrentState = become(super().new_state(allocation), self.State)
            return made

    name: Literal["features-shifted"] = "features-shifted"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = (*tuple(name for name in DECODING if name != "cached-equals-full"), "cache-extracts")


class WrongLightning(WithRuntime, LightningSpec):
    """Base of lightning attentions with the runtime class `runtime_class`."""

    n_heads: int | None = Field(2, description="Number of heads.")
    d_head: int | None = Field(8, description="Features of a head.")
    runtime_class: ClassVar[type[Lightning]]
    twin_class = LightningSpec


class FadesPadding(WrongLightning):
    """Add padding to the state."""

    class Runtime(Lightning):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, left_padding_B=None))

    name: Literal["fades-padding"] = "fades-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = ("uneven-prompts-cached", "cache-joins", "cache-extracts")


class FadesDocuments(WrongLightning):
    """Keep the state of one document for the next one."""

    class Runtime(Lightning):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, blind(forward, documents_BT=None))

    name: Literal["fades-documents"] = "fades-documents"
    runtime_class = Runtime
    caught_by = "documents-keep-apart"


class StateTransposed(WrongLightning):
    """Store the state with keys and values exchanged."""

    class Runtime(Lightning):
        class State(RecurrentState):
            def update(self, n_new: int, *tensors: Tensor) -> None:
                super().update(n_new, tensors[0].mT.contiguous())

        def new_state(self, allocation: Allocation) -> RecurrentState:
            made: RecurrentState = become(super().new_state(allocation), self.State)
            return made

    name: Literal["state-transposed"] = "state-transposed"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = (*tuple(name for name in DECODING if name != "cached-equals-full"), "cache-extracts")
