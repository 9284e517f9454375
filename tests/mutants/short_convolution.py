"""Short convolutions of keys, values and outputs of branches, and relative terms of scores, with one error each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from gptkit.components.attention.grouped_query import GroupedQuerySpec
from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention
from gptkit.components.attention.modules.relative_logits import RelativeLogits
from gptkit.components.block.pre_norm import PreNormSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.dynamic_convolution import DynamicConvolution
from gptkit.nn.forward import Forward
from gptkit.nn.short_convolution import ShortConvolution
from tests.mutants.attention import blind
from tests.mutants.mutant import ANYTHING, Mutant, become


class WrongConvolution(Mutant, GroupedQuerySpec):
    """Base of attentions whose values are convolved by `convolution`."""

    n_heads: int | None = Field(4, description="Number of query heads.")
    n_kv_heads: int | None = Field(2, description="Number of key/value heads.")
    d_head: int | None = Field(8, description="Features of a head.")
    kv_conv: int | None = Field(3, description="Width of the convolutions.")
    convolution: ClassVar[type[ShortConvolution]]
    twin_class = GroupedQuerySpec

    def build(self, context: BuildContext) -> Any:
        made = super().build(context)
        become(made.v_conv, self.convolution)
        return made


class ConvolvesPadding(WrongConvolution):
    """Let the values of the first tokens contain those of padding."""

    class Convolution(ShortConvolution):
        def forward(self, x_BTC: Tensor, forward: Forward) -> Tensor:  # type: ignore[override]
            return super().forward(x_BTC, blind(forward, left_padding_B=None))

    name: Literal["convolves-padding"] = "convolves-padding"  # type: ignore[assignment]
    qkv_bias: bool = Field(True, description="Without it, the vectors of padding are as others.")
    convolution = Convolution
    caught_by = "padding-is-ignored"
    also = ANYTHING


class ConvolvesDocuments(WrongConvolution):
    """Let the values of one document contain those of the one before it."""

    class Convolution(ShortConvolution):
        def forward(self, x_BTC: Tensor, forward: Forward) -> Tensor:  # type: ignore[override]
            return super().forward(x_BTC, blind(forward, documents_BT=None))

    name: Literal["convolves-documents"] = "convolves-documents"  # type: ignore[assignment]
    convolution = Convolution
    caught_by = "documents-keep-apart"


class ForgetsInputs(WrongConvolution):
    """Decode as if values before the token were zeros."""

    class Convolution(ShortConvolution):
        class State(RecurrentState):
            def update(self, n_new: int, *tensors: Tensor) -> None:
                super().update(n_new, *(0 * tensor for tensor in tensors))

        def new_state(self, allocation: Allocation) -> RecurrentState:
            return become(super().new_state(allocation), self.State)  # type: ignore[no-any-return]

    name: Literal["forgets-inputs"] = "forgets-inputs"  # type: ignore[assignment]
    convolution = Convolution
    caught_by = "cached-equals-full"
    also = ANYTHING


class ConvolvesTheFuture(WrongConvolution):
    """Shift the values by one token in the wrong direction."""

    class Convolution(ShortConvolution):
        def forward(self, x_BTC: Tensor, forward: Forward) -> Tensor:  # type: ignore[override]
            return super().forward(x_BTC.roll(-1, dims=1), forward)

    name: Literal["convolves-the-future"] = "convolves-the-future"  # type: ignore[assignment]
    convolution = Convolution
    caught_by = "no-future-leak"
    also = ANYTHING


class WritesUnconvolvedValues(Mutant, GroupedQuerySpec):
    """Write values as they are projected."""

    name: Literal["writes-unconvolved-values"] = "writes-unconvolved-values"  # type: ignore[assignment]
    n_heads: int | None = Field(2, description="Number of query heads.")
    d_head: int | None = Field(8, description="Features of a head.")
    kv_conv: int | None = Field(3, description="Width of the convolutions.")
    caught_by = "written-equals-built"

    def written(self, context: WritingContext) -> Written:
        right = super().written(context)
        return replace(right, text=right.text.replace("v_BTX.view_as(v_BTHD)\n", "v_BTHD\n"))


class WritesUnconvolvedOutputs(Mutant, PreNormSpec):
    """Write a block that adds the output of its feed-forward as it is."""

    name: Literal["writes-unconvolved-outputs"] = "writes-unconvolved-outputs"  # type: ignore[assignment]
    output_conv: int | None = Field(3, description="Width of the convolutions.")
    caught_by = "written-equals-built"

    def written(self, context: WritingContext) -> Written:
        right = super().written(context)
        return replace(right, text=right.text.replace("fed_BTE, cache[", "_, cache["))


class WrongTerms(Mutant, GroupedQuerySpec):
    """Base of attentions with the relative terms of `terms`."""

    n_heads: int | None = Field(4, description="Number of query heads.")
    d_head: int | None = Field(8, description="Features of a head.")
    relative_width: int | None = Field(3, description="Relative features of a head.")
    relative_extent: int | None = Field(6, description="Distances with a term.")
    terms: ClassVar[type[RelativeLogits]]
    twin_class = GroupedQuerySpec

    def build(self, context: BuildContext) -> Any:
        made = super().build(context)
        become(made.relative, self.terms)
        return made


class CountsFromTheFirstKey(WrongTerms):
    """Use the index of a key in view in place of its position."""

    class Terms(RelativeLogits):
        def forward(self, r_BHTR: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
            return super().forward(r_BHTR, query_positions, key_positions - key_positions.amin(dim=-1, keepdim=True))

    name: Literal["counts-from-the-first-key"] = "counts-from-the-first-key"  # type: ignore[assignment]
    terms = Terms
    caught_by = "padding-is-ignored"
    also = ANYTHING


class DependsOnTheIndex(WrongTerms):
    """Look terms up by the position of the key, not by its distance."""

    class Terms(RelativeLogits):
        def forward(self, r_BHTR: Tensor, query_positions: Tensor, key_positions: Tensor) -> Tensor:
            return super().forward(r_BHTR, query_positions, query_positions.amax() - key_positions)

    name: Literal["depends-on-the-index"] = "depends-on-the-index"  # type: ignore[assignment]
    terms = Terms
    caught_by = "cached-equals-full"
    also = ANYTHING


class WritesTermsBeyondTheExtent(Mutant, GroupedQuerySpec):
    """Write terms of longer distances as those of the longest one."""

    name: Literal["writes-terms-beyond-the-extent"] = "writes-terms-beyond-the-extent"  # type: ignore[assignment]
    n_heads: int | None = Field(2, description="Number of query heads.")
    d_head: int | None = Field(8, description="Features of a head.")
    relative_width: int | None = Field(3, description="Relative features of a head.")
    relative_extent: int | None = Field(4, description="Distances with a term.")
    caught_by = "written-equals-built"

    def written(self, context: WritingContext) -> Written:
        right = super().written(context)
        terms = right.parts["relative_logits"]
        changed = replace(terms, text=terms.text.replace("clamp(0, $RELATIVE_EXTENT)", "clamp(0, $RELATIVE_EXTENT - 1)"))
        return replace(right, parts={**right.parts, "relative_logits": changed})


class WrongDynamicConvolution(Mutant, GroupedQuerySpec):
    """Base of attentions whose values are convolved by `convolution`, with weights of each token."""

    n_heads: int | None = Field(4, description="Number of query heads.")
    n_kv_heads: int | None = Field(2, description="Number of key/value heads.")
    d_head: int | None = Field(8, description="Features of a head.")
    kv_conv: int | None = Field(3, description="Width of the convolutions.")
    kv_conv_form: Literal["plain", "scaled", "dynamic"] = Field("dynamic", description="Form of the convolutions.")
    convolution: ClassVar[type[DynamicConvolution]]
    twin_class = GroupedQuerySpec

    def build(self, context: BuildContext) -> Any:
        made = super().build(context)
        become(made.v_conv, self.convolution)
        return made


class ConvolvesPaddingByTokens(WrongDynamicConvolution):
    """Let the values of the first tokens contain those of padding."""

    class Convolution(DynamicConvolution):
        def forward(self, x_BTC: Tensor, input_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTC, input_BTE, blind(forward, left_padding_B=None))

    name: Literal["convolves-padding-by-tokens"] = "convolves-padding-by-tokens"  # type: ignore[assignment]
    qkv_bias: bool = Field(True, description="Without it, the vectors of padding are as others.")
    convolution = Convolution
    caught_by = "padding-is-ignored"
    also = ANYTHING


class ConvolvesDocumentsByTokens(WrongDynamicConvolution):
    """Let the values of one document contain those of the one before it."""

    class Convolution(DynamicConvolution):
        def forward(self, x_BTC: Tensor, input_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTC, input_BTE, blind(forward, documents_BT=None))

    name: Literal["convolves-documents-by-tokens"] = "convolves-documents-by-tokens"  # type: ignore[assignment]
    convolution = Convolution
    caught_by = "documents-keep-apart"
    also = ANYTHING


class WeighsByTheLastToken(WrongDynamicConvolution):
    """Compute the weights of all tokens from the last one."""

    class Convolution(DynamicConvolution):
        def forward(self, x_BTC: Tensor, input_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTC, input_BTE[:, -1:].expand_as(input_BTE), forward)

    name: Literal["weighs-by-the-last-token"] = "weighs-by-the-last-token"  # type: ignore[assignment]
    convolution = Convolution
    caught_by = "no-future-leak"
    also = ANYTHING


class SinksOfTheLastToken(Mutant, GroupedQuerySpec):
    """Compute the sinks of all tokens from the last one."""

    class Runtime(GroupedQueryAttention):
        def _own_terms(self, x_BTE: Tensor, forward: Forward) -> tuple[Any, ...]:
            return super()._own_terms(x_BTE[:, -1:].expand_as(x_BTE), forward)

    name: Literal["sinks-of-the-last-token"] = "sinks-of-the-last-token"  # type: ignore[assignment]
    token_sinks: bool = Field(True, description="Logits of sinks.")
    caught_by = "no-future-leak"
    also = ANYTHING
    twin_class = GroupedQuerySpec

    def build(self, context: BuildContext) -> Any:
        return become(super().build(context), self.Runtime)
