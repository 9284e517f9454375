"""Differential attention with one error each."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from gptkit.components.attention.differential import DifferentialSpec
from gptkit.components.attention.modules.differential import DifferentialAttention
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from tests.mutants.attention import DECODING, blind
from tests.mutants.mutant import WithRuntime


class Wrong(WithRuntime, DifferentialSpec):
    """Base of differential attentions with the runtime class `runtime`."""

    n_heads: int | None = Field(2, description="Number of heads.")
    d_head: int | None = Field(8, description="Features of a query.")
    runtime_class: ClassVar[type[DifferentialAttention]]
    twin_class = DifferentialSpec


class SubtractsPadding(Wrong):
    """Attend to padding."""

    class Runtime(DifferentialAttention):
        def score(self, q: Tensor, k: Tensor, v: Tensor, forward: Forward, offset: KeyOffset) -> Tensor:
            return super().score(q, k, v, blind(forward, left_padding_B=None), offset)

    name: Literal["subtracts-padding"] = "subtracts-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = ("cache-joins", "uneven-prompts-cached", "cache-extracts")


class SubtractsAcrossDocuments(Wrong):
    """Attend to other documents."""

    class Runtime(DifferentialAttention):
        def score(self, q: Tensor, k: Tensor, v: Tensor, forward: Forward, offset: KeyOffset) -> Tensor:
            return super().score(q, k, v, blind(forward, documents_BT=None), offset)

    name: Literal["subtracts-across-documents"] = "subtracts-across-documents"
    runtime_class = Runtime
    caught_by = "documents-keep-apart"
    also = ("attention-weights",)


class ExchangesMapsWhenDecoding(Wrong):
    """Subtract the first map from the second one for a single token."""

    class Runtime(DifferentialAttention):
        def score(self, q: Tensor, k: Tensor, v: Tensor, forward: Forward, offset: KeyOffset) -> Tensor:
            both_BGTV = super().score(q, k, v, forward, offset)
            if q.shape[2] > 1:
                return both_BGTV
            return both_BGTV.unflatten(1, (self.n_kv_heads, 2, -1)).flip(2).flatten(1, 3)

    name: Literal["exchanges-maps-when-decoding"] = "exchanges-maps-when-decoding"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = (*tuple(name for name in DECODING if name != "cached-equals-full"), "cache-extracts", "takes-wider-queries")
