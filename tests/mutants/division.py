"""Components with an error in their division for tensor parallelism."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention
from gptkit.components.attention.multi_head import MultiHeadSpec
from gptkit.components.feedforward.gated import GatedSpec
from gptkit.components.feedforward.modules.gated import Gated
from gptkit.kinds.context import BuildContext
from gptkit.nn.tensor_parallel import Divided, Division
from tests.mutants.mutant import Mutant, become


class PackedRows(Mutant, MultiHeadSpec):
    """Divide the packed projection by rows, as if it were one projection."""

    class Runtime(GroupedQueryAttention):
        def divisions(self) -> Mapping[str, Division]:
            return {**super().divisions(), "qkv.weight": Divided(-2, {"heads": sum(self.split)})}

    name: Literal["packed-rows"] = "packed-rows"
    n_heads: int | None = Field(2, description="Query heads.")
    d_head: int | None = Field(16, description="Features of a head.")
    caught_by = "sums-over-parts"

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        made: GroupedQueryAttention = become(super().build(context), self.Runtime)
        return made


class AddsItsBiasTwice(Mutant, GatedSpec):
    """Declare the bias of the output as shared, so that every process adds it."""

    class Runtime(Gated):
        def divisions(self) -> Mapping[str, Division]:
            return {**super().divisions(), "down.bias": "shared"}

    name: Literal["adds-its-bias-twice"] = "adds-its-bias-twice"
    bias: bool = Field(True, description="Use biases.")
    caught_by = "sums-over-parts"

    def build(self, context: BuildContext) -> Gated:
        made: Gated = become(super().build(context), self.Runtime)
        return made
