"""Norms with gates, norms of a block's own, and latents that are read before and after their norm, with one error each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from gptkit.components.attention.latent import LatentSpec
from gptkit.components.attention.modules.latent import LatentAttention
from gptkit.components.block.pre_norm import PreNormSpec
from gptkit.components.norm.gated import GatedNormSpec
from gptkit.components.norm.layer import LayerNormSpec
from gptkit.components.norm.modules.gated import GatedNorm
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import Name, WritingContext, Written
from gptkit.nn.forward import Forward
from gptkit.nn.tensor_parallel import Division
from tests.mutants.attention import DECODING
from tests.mutants.mutant import Mutant, WithRuntime, become


class GatesByTheSequence(Mutant, GatedNormSpec):
    """Compute the gates from the mean over the sequence."""

    class Runtime(GatedNorm):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(x)
            return y * self.up(nn.functional.silu(self.down(y.mean(dim=-2, keepdim=True)))).sigmoid()

    name: Literal["gates-by-the-sequence"] = "gates-by-the-sequence"  # type: ignore[assignment]
    caught_by = "position-wise"
    also = ("any-shape",)

    def build(self, context: BuildContext, *, dim: int) -> GatedNorm:
        made: GatedNorm = become(super().build(context, dim=dim), self.Runtime)
        return made


class WritesGatesOfTheInput(Mutant, GatedNormSpec):
    """Write gates that are computed from the input, not from its norm."""

    name: Literal["writes-gates-of-the-input"] = "writes-gates-of-the-input"  # type: ignore[assignment]
    caught_by = "written-equals-built"

    def written(self, context: WritingContext, *, dim: Name) -> Written:
        right = super().written(context, dim=dim)
        return replace(right, text=right.text.replace("self.down(y)", "self.down(x)"))


class WritesTheNormOfTheLayer(Mutant, PreNormSpec):
    """Write the layer's norm in place of the block's own."""

    name: Literal["writes-the-norm-of-the-layer"] = "writes-the-norm-of-the-layer"  # type: ignore[assignment]
    feedforward_norm: NormSpec | None = Field(LayerNormSpec(), description="Norm of the feed-forward's input.")
    caught_by = "written-equals-built"

    def written(self, context: WritingContext) -> Written:
        right = super().written(context)
        return replace(right, parts={**right.parts, "feedforward_norm": right.parts["attention_norm"]})


class WrongQueries(WithRuntime, LatentSpec):
    """Base of latent attentions that read both latents, with the runtime class `runtime_class`."""

    n_heads: int | None = Field(2, description="Number of heads.")
    q_rank: int | None = Field(7, description="Width of the latent of queries.")
    output_gate: bool = Field(True, description="Multiply outputs by a gate.")
    gate_input: Literal["layer", "queries"] = Field("queries", description="What the gate is projected from.")
    query_latents: Literal["normed", "both"] = Field("both", description="What queries are projected from.")
    runtime_class: ClassVar[type[LatentAttention]]
    twin_class = LatentSpec


class ReadsOneLatentWhenDecoding(WrongQueries):
    """Project the query of a single token from the latent before its norm only."""

    class Runtime(LatentAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            kept = self.q_latent_norm
            self.q_latent_norm = nn.Identity() if x_BTE.shape[1] == 1 else kept
            try:
                return super().forward(x_BTE, forward)
            finally:
                self.q_latent_norm = kept

    name: Literal["reads-one-latent-when-decoding"] = "reads-one-latent-when-decoding"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = (*DECODING, "cache-extracts", "takes-wider-queries")


class SharesTheQueries(WrongQueries):
    """Give every process the queries' up-projection of all heads."""

    class Runtime(LatentAttention):
        def divisions(self) -> Mapping[str, Division]:
            return {**super().divisions(), "q_up.weight": "shared"}

    name: Literal["shares-the-queries"] = "shares-the-queries"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "sums-over-parts"


class WritesLatentsInTheOtherOrder(Mutant, LatentSpec):
    """Write the latent before its norm first."""

    name: Literal["writes-latents-in-the-other-order"] = "writes-latents-in-the-other-order"  # type: ignore[assignment]
    n_heads: int | None = Field(2, description="Number of heads.")
    q_rank: int | None = Field(7, description="Width of the latent of queries.")
    query_latents: Literal["normed", "both"] = Field("both", description="What queries are projected from.")
    caught_by = "written-equals-built"

    def written(self, context: WritingContext) -> Written:
        right = super().written(context)
        return replace(right, text=right.text.replace("(q_BTC, down_BTC)", "(down_BTC, q_BTC)"))
