"""Blocks with a branch that layers share, with one error each."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.components.block.modules.shared_branch import Adapter, SharedBranch
from gptkit.components.block.shared_branch import SharedBranchSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.embedding import EMBEDDED
from gptkit.nn.forward import Forward
from tests.mutants.mutant import ANYTHING, Mutant, WithRuntime, become


class ReadsTheNextEmbedding(WithRuntime, SharedBranchSpec):
    """Concatenate the embedding of the next token."""

    class Runtime(SharedBranch):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            changed = forward.trial()
            changed._published[EMBEDDED] = forward.read(self, EMBEDDED).roll(-1, dims=1)
            return super().forward(x_BTE, changed)

    name: Literal["reads-the-next-embedding"] = "reads-the-next-embedding"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "no-future-leak"
    also = ANYTHING


class KeepsOneStateForAllLayers(WithRuntime, SharedBranchSpec):
    """Append the branch's keys and values of all layers to one state."""

    class Runtime(SharedBranch):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            forward._calls.pop(self.branch.attention.state_index, None)
            return super().forward(x_BTE, forward)

    name: Literal["keeps-one-state-for-all-layers"] = "keeps-one-state-for-all-layers"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = ANYTHING


class WrongAdapter(Mutant, SharedBranchSpec):
    """Base of blocks whose adapter of queries, keys and values has the class `adapter_class`."""

    attention_rank: int | None = Field(3, description="Rank of the layer's adapters of queries, keys and values.")
    adapter_class: ClassVar[type[Adapter]]
    twin_class = SharedBranchSpec

    def build(self, context: BuildContext) -> Any:
        made: Any = super().build(context)
        become(made.attention_adapter, self.adapter_class)
        return made


class AdaptsToAnotherRow(WrongAdapter):
    """Add what the adapter returns for another row."""

    class Wrong(Adapter):
        def forward(self, x_BTY: Tensor) -> Tensor:
            return super().forward(x_BTY.roll(1, dims=0))

    name: Literal["adapts-to-another-row"] = "adapts-to-another-row"  # type: ignore[assignment]
    adapter_class = Wrong
    caught_by = "rows-are-independent"
    also = ANYTHING


class AdaptsToTheCallsFirst(WrongAdapter):
    """Add what the adapter returns for the call's first token."""

    class Wrong(Adapter):
        def forward(self, x_BTY: Tensor) -> Tensor:
            return super().forward(x_BTY[:, :1].expand_as(x_BTY))

    name: Literal["adapts-to-the-calls-first"] = "adapts-to-the-calls-first"  # type: ignore[assignment]
    adapter_class = Wrong
    caught_by = "cached-equals-full"
    also = ANYTHING


class AdaptsWithoutGradient(WrongAdapter):
    """Compute the adapter without gradients."""

    class Wrong(Adapter):
        def forward(self, x_BTY: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x_BTY)

    name: Literal["adapts-without-gradient"] = "adapts-without-gradient"  # type: ignore[assignment]
    adapter_class = Wrong
    caught_by = "gradients"
    also = ANYTHING
