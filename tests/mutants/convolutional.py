"""Attention with convolutions, networks as routers, affine norms and experts that return zeros, with one error each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from gptkit.components.attention.convolutional import ConvolutionalSpec
from gptkit.components.attention.modules.convolutional import ConvolutionalAttention
from gptkit.components.block.pre_norm import PreNormSpec
from gptkit.components.feedforward.experts import ExpertsSpec
from gptkit.components.norm.affine import AffineNormSpec
from gptkit.components.norm.modules.affine import AffineNorm
from gptkit.components.norm.rms import RMSNormSpec
from gptkit.components.router.modules.network import NetworkRouter
from gptkit.components.router.network import NetworkSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import Name, WritingContext, Written
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.composite import CompositeState
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.forward import Forward
from tests.mutants.attention import blind
from tests.mutants.mutant import ANYTHING, Mutant, WithRuntime, become
from tests.mutants.selective import CACHED, PADDING


class WrongConvolutional(WithRuntime, ConvolutionalSpec):
    """Base of attentions with the runtime class `runtime_class`."""

    n_heads: int | None = Field(4, description="Number of query heads.")
    n_kv_heads: int | None = Field(2, description="Number of key/value heads.")
    d_head: int = Field(8, description="Features of a head.")
    qkv_bias: bool = Field(True, description="Add a bias to the projections.")
    runtime_class: ClassVar[type[ConvolutionalAttention]]
    twin_class = ConvolutionalSpec


class MixesPadding(WrongConvolutional):
    """Let the convolutions and the previous values read padding."""

    class Runtime(ConvolutionalAttention):
        def _projected(self, x_BTE: Tensor, recent: RecurrentState | None, forward: Forward) -> Any:
            return super()._projected(x_BTE, recent, blind(forward, left_padding_B=None))

    name: Literal["mixes-padding"] = "mixes-padding"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = (*PADDING, "backends-agree")


class MixesDocuments(WrongConvolutional):
    """Let the convolutions and the previous values of one document read the one before it."""

    class Runtime(ConvolutionalAttention):
        def _projected(self, x_BTE: Tensor, recent: RecurrentState | None, forward: Forward) -> Any:
            return super()._projected(x_BTE, recent, blind(forward, documents_BT=None))

    name: Literal["mixes-documents"] = "mixes-documents"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "documents-keep-apart"


class ForgetsOneTail(WrongConvolutional):
    """Store zeros for one of the recent vectors."""

    forgotten: ClassVar[int]

    class Runtime(ConvolutionalAttention):
        forgotten: int

        class State(RecurrentState):
            forgotten: int

            def update(self, n_new: int, *tensors: Tensor) -> None:
                kept = (0 * tensor if at == self.forgotten else tensor for at, tensor in enumerate(tensors))
                super().update(n_new, *kept)

        def new_state(self, allocation: Allocation) -> CompositeState:
            made = super().new_state(allocation)
            become(made["recent"], self.State).forgotten = self.forgotten
            return made

    runtime_class = Runtime

    def build(self, *arguments: Any, **options: Any) -> Any:
        made = super().build(*arguments, **options)
        made.forgotten = self.forgotten
        return made


class ForgetsTheInputs(ForgetsOneTail):
    """Decode as if the convolution of features saw zeros before the token."""

    name: Literal["forgets-the-inputs"] = "forgets-the-inputs"  # type: ignore[assignment]
    forgotten = 0
    caught_by = "cached-equals-full"
    also = (*CACHED, "takes-wider-queries")


class ForgetsTheFirstConvolution(ForgetsOneTail):
    """Decode as if the convolution of heads saw zeros before the token."""

    name: Literal["forgets-the-first-convolution"] = "forgets-the-first-convolution"  # type: ignore[assignment]
    forgotten = 1
    caught_by = "cached-equals-full"
    also = (*CACHED, "takes-wider-queries")


class ForgetsThePreviousValue(ForgetsOneTail):
    """Decode with the values of no previous token."""

    name: Literal["forgets-the-previous-value"] = "forgets-the-previous-value"  # type: ignore[assignment]
    forgotten = 2
    caught_by = "cached-equals-full"
    also = (*CACHED, "takes-wider-queries")


class ReadsTheNextToken(WrongConvolutional):
    """Shift the convolved queries and keys by one token in the wrong direction."""

    class Runtime(ConvolutionalAttention):
        def _heads(self, x_BTC: Tensor) -> tuple[Tensor, Tensor]:
            return super()._heads(x_BTC.roll(-1, dims=1))

    name: Literal["reads-the-next-token"] = "reads-the-next-token"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "no-future-leak"
    also = ANYTHING


class WritesCurrentValues(Mutant, ConvolutionalSpec):
    """Write values that are all of the current token."""

    name: Literal["writes-current-values"] = "writes-current-values"  # type: ignore[assignment]
    n_heads: int | None = Field(2, description="Number of query heads.")
    d_head: int = Field(8, description="Features of a head.")
    caught_by = "written-equals-built"

    def written(self, context: WritingContext) -> Written:
        right = super().written(context)
        return replace(right, text=right.text.replace("self.previous_value(previous_BTE)", "self.previous_value(x_BTE)"))


class WrongNetwork(WithRuntime, NetworkSpec):
    """Base of routers with the runtime class `runtime_class`."""

    d_hidden: int | None = Field(8, description="Width of the network.")
    z_loss: float = Field(0.01, description="Not zero, so that there is a loss.")
    runtime_class: ClassVar[type[NetworkRouter]]
    twin_class = NetworkSpec


class RoutesByTheMean(WrongNetwork):
    """Add the mean of all tokens to the network's input."""

    class Runtime(NetworkRouter):
        def logits(self, x_NE: Tensor) -> Tensor:
            return super().logits(x_NE + x_NE.mean(dim=0))

    name: Literal["routes-by-the-mean"] = "routes-by-the-mean"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "routes-token-by-token"
    also = ANYTHING


class NetworkCountsPadding(WrongNetwork):
    """Include padding in the loss."""

    class Runtime(NetworkRouter):
        def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return super().forward(x_NE, forward, None)

    name: Literal["network-counts-padding"] = "network-counts-padding"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "padding-does-not-count"
    also = ("losses-exclude-padding",)


class SkipsTheNetwork(WrongNetwork):
    """Score the network's input without its hidden layers."""

    class Runtime(NetworkRouter):
        def logits(self, x_NE: Tensor) -> Tensor:
            return super(NetworkRouter, self).logits(x_NE)

    name: Literal["skips-the-network"] = "skips-the-network"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "gradients"


class WritesNoSum(Mutant, NetworkSpec):
    """Write routers that do not add the vectors of the previous layer."""

    name: Literal["writes-no-sum"] = "writes-no-sum"  # type: ignore[assignment]
    reads_previous: bool = Field(True, description="Add the vectors of the previous layer's router.")
    caught_by = "written-equals-built"

    def written(self, context: WritingContext, *, n_experts: int) -> Written:
        right = super().written(context, n_experts=n_experts)
        return replace(right, text=right.text.replace('* shared["router"]', '* 0 * shared["router"]'))


class ScalesByTheSequence(Mutant, AffineNormSpec):
    """Subtract the mean over the sequence before the multiplication."""

    class Runtime(AffineNorm):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x - x.mean(dim=-2, keepdim=True))

    name: Literal["scales-by-the-sequence"] = "scales-by-the-sequence"  # type: ignore[assignment]
    caught_by = "position-wise"
    also = ANYTHING

    def build(self, context: BuildContext, *, dim: int) -> AffineNorm:
        made: AffineNorm = become(super().build(context, dim=dim), self.Runtime)
        return made


class WritesTheBiasLast(Mutant, AffineNormSpec):
    """Write the bias after the weight where it belongs before it."""

    name: Literal["writes-the-bias-last"] = "writes-the-bias-last"  # type: ignore[assignment]
    bias: Literal["after", "before", "none"] = Field("before", description="Where the bias is added.")
    caught_by = "written-equals-built"

    def written(self, context: WritingContext, *, dim: Name) -> Written:
        return AffineNormSpec(bias="after").written(context, dim=dim)


class WritesNoNormOfTheStream(Mutant, PreNormSpec):
    """Write the stream without its norm."""

    name: Literal["writes-no-norm-of-the-stream"] = "writes-no-norm-of-the-stream"  # type: ignore[assignment]
    stream_norm: NormSpec | None = Field(RMSNormSpec(), description="Norm of the residual stream.")
    caught_by = "written-equals-built"

    def written(self, context: WritingContext) -> Written:
        right = super().written(context)
        return replace(right, text=right.text.replace("x_BTE = self.attention_stream_norm(x_BTE)", "pass"))


class WritesZerosAsInputs(Mutant, ExpertsSpec):
    """Write experts that return their input where they return zeros."""

    name: Literal["writes-zeros-as-inputs"] = "writes-zeros-as-inputs"  # type: ignore[assignment]
    n_experts: int = Field(3, description="Number of experts with weights.")
    identity_experts: int = Field(1, description="Number of experts that return their input.")
    zero_experts: int = Field(4, description="Number of experts that return zeros.")
    caught_by = "written-equals-built"

    def written(self, context: WritingContext) -> Written:
        right = super().written(context)
        return replace(right, text=right.text.replace(" | (experts_NK >= $N_EXPERTS + $N_IDENTITIES)", ""))
