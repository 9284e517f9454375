"""Attentions side by side with one error each."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from gptkit.components.attention.hybrid import HybridSpec
from gptkit.components.attention.modules.hybrid import Hybrid
from gptkit.core.component import component
from gptkit.kinds.attention import AttentionSpec
from gptkit.nn.forward import Forward
from tests.mutants.attention import DECODING, blind
from tests.mutants.mutant import WithRuntime

ATTENDS = {"name": "multi-head", "n_heads": 2, "d_head": 8}
RECURS = {"name": "lightning", "n_heads": 2, "d_head": 8}


class WrongHybrid(WithRuntime, HybridSpec):
    """Base of hybrids with the runtime class `runtime_class`."""

    attention: AttentionSpec = component(ATTENDS, description="Attention.")
    recurrence: AttentionSpec = component(RECURS, description="Recurrence.")
    runtime_class: ClassVar[type[Hybrid]]
    twin_class = HybridSpec


class ForgetsRecurrence(WrongHybrid):
    """Compute the recurrence without its state."""

    class Runtime(Hybrid):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            stateless = blind(forward, states=None)
            return self.attention(x_BTE, forward) + self.recurrence(x_BTE, stateless)  # type: ignore[no-any-return]

    name: Literal["forgets-recurrence"] = "forgets-recurrence"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = (*tuple(name for name in DECODING if name != "cached-equals-full"), "cache-extracts", "takes-wider-queries")


class RecursOverPadding(WrongHybrid):
    """Compute the recurrence over padding, too."""

    class Runtime(Hybrid):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            padded = blind(forward, left_padding_B=None)
            return self.attention(x_BTE, forward) + self.recurrence(x_BTE, padded)  # type: ignore[no-any-return]

    name: Literal["recurs-over-padding"] = "recurs-over-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = ("uneven-prompts-cached", "cache-joins", "cache-extracts")


class RecursAcrossDocuments(WrongHybrid):
    """Compute the recurrence over several documents."""

    class Runtime(Hybrid):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            joined = blind(forward, documents_BT=None)
            return self.attention(x_BTE, forward) + self.recurrence(x_BTE, joined)  # type: ignore[no-any-return]

    name: Literal["recurs-across-documents"] = "recurs-across-documents"
    runtime_class = Runtime
    caught_by = "documents-keep-apart"
