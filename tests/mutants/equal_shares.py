"""Blocks whose terms have equal shares, gates with a bias per head, and temperatures by a power, with one error each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention
from gptkit.components.attention.multi_head import MultiHeadSpec
from gptkit.components.block.sandwich import SandwichSpec
from gptkit.components.position.modules.query_temperature import QueryTemperature
from gptkit.components.position.query_temperature import QueryTemperatureSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import Setting, WritingContext, Written
from gptkit.nn.forward import Forward
from gptkit.nn.tensor_parallel import Division
from tests.mutants.attention import DECODING
from tests.mutants.mutant import Mutant, become


class WritesTheTermsOfTheFirstLayer(Mutant, SandwichSpec):
    """Write the number of terms of the first layer in all layers."""

    name: Literal["writes-the-terms-of-the-first-layer"] = "writes-the-terms-of-the-first-layer"  # type: ignore[assignment]
    depth_scaled: bool = Field(True, description="Weight branch and residual.")
    caught_by = "written-equals-built"

    def written(self, context: WritingContext) -> Written:
        right = super().written(context)
        return replace(right, settings={**right.settings, "LAYER": Setting(0)})


class Gated(MultiHeadSpec):
    """Multi-head attention with a bias of the gates."""

    n_heads: int | None = Field(2, description="Query heads.")
    d_head: int | None = Field(16, description="Features of a head.")
    output_gate: bool = Field(True, description="Multiply outputs by a gate.")
    gate_bias: bool = Field(True, description="Add a number of each head to the gate.")
    runtime_class: ClassVar[type[GroupedQueryAttention]]

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made: GroupedQueryAttention = become(super().build(context), self.runtime_class)
        return made


class SharesTheGatesBias(Mutant, Gated):
    """Give every process the biases of the gates of all heads."""

    class Runtime(GroupedQueryAttention):
        def divisions(self) -> Mapping[str, Division]:
            return {**super().divisions(), "gate_bias": "shared"}

    name: Literal["shares-the-gates-bias"] = "shares-the-gates-bias"  # type: ignore[assignment]
    runtime_class = Runtime
    twin_class = MultiHeadSpec
    caught_by = "sums-over-parts"


class ForgetsTheGatesBiasWhenDecoding(Mutant, Gated):
    """Omit the bias of the gates for a single token."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            kept = self.gate_bias
            self.gate_bias = None if x_BTE.shape[1] == 1 else kept
            try:
                return super().forward(x_BTE, forward)
            finally:
                self.gate_bias = kept

    name: Literal["forgets-the-gates-bias-when-decoding"] = "forgets-the-gates-bias-when-decoding"  # type: ignore[assignment]
    runtime_class = Runtime
    twin_class = MultiHeadSpec
    caught_by = "cached-equals-full"
    also = (*DECODING, "cache-extracts", "takes-wider-queries")


class GrowsWithTheCall(Mutant, QueryTemperatureSpec):
    """Let queries grow from the first token of every call."""

    class Runtime(QueryTemperature):
        def prepare(self, positions: Tensor) -> Tensor:
            return super().prepare(positions - positions[..., :1])

    name: Literal["grows-with-the-call"] = "grows-with-the-call"  # type: ignore[assignment]
    growth: Literal["logarithm", "power", "smooth"] = Field("power", description="How queries grow.")
    strength: float = Field(2.0, description="The exponent.")
    interval: int = Field(4, description="Tokens.")
    caught_by = "cached-equals-full"
    also = (*DECODING, "cache-extracts")

    def build(self, context: BuildContext, *, heads: HeadShape) -> QueryTemperature:
        made: QueryTemperature = become(QueryTemperature(self), self.Runtime)
        return made
