"""Mixtures of attention heads with one error each."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from gptkit.components.attention.expert_heads import ExpertHeadsSpec
from gptkit.components.attention.modules.expert_heads import ExpertHeadsAttention
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from tests.mutants.attention import DECODING, blind
from tests.mutants.mutant import WithRuntime


class Wrong(WithRuntime, ExpertHeadsSpec):
    """Base of mixtures of attention heads with the runtime class `runtime`."""

    n_experts: int = Field(4, description="Number of experts.")
    n_kv_heads: int | None = Field(2, description="Heads of an expert.")
    d_head: int | None = Field(8, description="Features of a head.")
    runtime_class: ClassVar[type[ExpertHeadsAttention]]
    twin_class = ExpertHeadsSpec


class ChoosesPadding(Wrong):
    """Attend to padding."""

    class Runtime(ExpertHeadsAttention):
        def score(self, q: Tensor, k: Tensor, v: Tensor, forward: Forward, offset: KeyOffset) -> Tensor:
            return super().score(q, k, v, blind(forward, left_padding_B=None), offset)

    name: Literal["chooses-padding"] = "chooses-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = ("cache-joins", "uneven-prompts-cached", "cache-extracts")


class ChoosesAcrossDocuments(Wrong):
    """Attend to other documents."""

    class Runtime(ExpertHeadsAttention):
        def score(self, q: Tensor, k: Tensor, v: Tensor, forward: Forward, offset: KeyOffset) -> Tensor:
            return super().score(q, k, v, blind(forward, documents_BT=None), offset)

    name: Literal["chooses-across-documents"] = "chooses-across-documents"
    runtime_class = Runtime
    caught_by = "documents-keep-apart"
    also = ("attention-weights",)


class ExchangesExpertsWhenDecoding(Wrong):
    """Exchange the heads of the experts for a single token."""

    class Runtime(ExpertHeadsAttention):
        def score(self, q: Tensor, k: Tensor, v: Tensor, forward: Forward, offset: KeyOffset) -> Tensor:
            out_BHTD = super().score(q, k, v, forward, offset)
            if q.shape[2] > 1:
                return out_BHTD
            return out_BHTD.unflatten(1, (self.heads.n_kv_heads, -1)).flip(2).flatten(1, 2)

    name: Literal["exchanges-experts-when-decoding"] = "exchanges-experts-when-decoding"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = (*tuple(name for name in DECODING if name != "cached-equals-full"), "cache-extracts", "takes-wider-queries")
