"""Blocks of several residual streams, or of stacks in cycles, with one error each."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gptkit.components.block.gated_hyper_connections import GatedHyperConnectionsSpec
from gptkit.components.block.hierarchical import HierarchicalSpec
from gptkit.components.block.manifold_hyper_connections import ManifoldHyperConnectionsSpec
from gptkit.components.block.modules.gated_hyper_connections import GatedHyperConnections, StreamGates
from gptkit.components.block.modules.hierarchical import Hierarchical
from gptkit.components.block.modules.manifold_hyper_connections import (
    ManifoldHyperConnections,
    StreamCollapse,
    StreamMixing,
)
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward
from tests.mutants.mutant import ANYTHING, Mutant, WithRuntime, become


class MixesByFollowingTokens(Mutant, ManifoldHyperConnectionsSpec):
    """Compute the weights from the last token's streams."""

    class Mixing(StreamMixing):
        def forward(self, streams_BTNE: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
            h_BTE, _, _ = super().forward(streams_BTNE)
            _, write_BTN, mix_BTNN = super().forward(streams_BTNE[:, -1:].expand_as(streams_BTNE))
            return h_BTE, write_BTN, mix_BTNN

    name: Literal["mixes-by-following-tokens"] = "mixes-by-following-tokens"  # type: ignore[assignment]
    caught_by = "no-future-leak"
    also = ANYTHING

    def build(self, context: BuildContext) -> Any:
        made: Any = super().build(context)
        become(made.attention_mixing, self.Mixing)
        return made


class CollapsesInEveryLayer(Mutant, ManifoldHyperConnectionsSpec):
    """Give every layer the weights that only the last one uses."""

    name: Literal["collapses-in-every-layer"] = "collapses-in-every-layer"  # type: ignore[assignment]
    caught_by = "gradients"
    also = ANYTHING

    def build(self, context: BuildContext) -> Any:
        made: Any = super().build(context)
        made.unused = StreamCollapse(self, context.d_model)
        return made


class ReturnsItsStreamsInFp32(Mutant, ManifoldHyperConnectionsSpec):
    """Return the collapsed streams in the dtype of the weights of the streams."""

    class Runtime(ManifoldHyperConnections):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, forward).to(torch.promote_types(x_BTE.dtype, torch.float32))

    name: Literal["returns-its-streams-in-fp32"] = "returns-its-streams-in-fp32"  # type: ignore[assignment]
    caught_by = "bf16-and-fp32"
    also = ANYTHING

    def build(self, context: BuildContext) -> Any:
        return become(super().build(context), self.Runtime)


class GatesByFollowingTokens(Mutant, GatedHyperConnectionsSpec):
    """Compute the weights of the outputs from the last token's streams."""

    class Gates(StreamGates):
        def forward(self, streams_BTNE: Tensor) -> tuple[Tensor, Tensor]:
            h_BTE, _ = super().forward(streams_BTNE)
            return h_BTE, super().forward(streams_BTNE[:, -1:].expand_as(streams_BTNE))[1]

    name: Literal["gates-by-following-tokens"] = "gates-by-following-tokens"  # type: ignore[assignment]
    caught_by = "no-future-leak"
    also = ANYTHING

    def build(self, context: BuildContext) -> Any:
        made: Any = super().build(context)
        become(made.attention_gates, self.Gates)
        return made


class GatesStreamsInEveryLayer(Mutant, GatedHyperConnectionsSpec):
    """Give every layer the gates that only the last one uses."""

    name: Literal["gates-streams-in-every-layer"] = "gates-streams-in-every-layer"  # type: ignore[assignment]
    caught_by = "gradients"
    also = ANYTHING

    def build(self, context: BuildContext) -> Any:
        made: Any = super().build(context)
        made.unused = StreamGates(self, context, writes=False)
        return made


class GatedStreamsInFp32(Mutant, GatedHyperConnectionsSpec):
    """Return the streams in fp32 or wider."""

    class Runtime(GatedHyperConnections):
        def run(self, streams_BTNE: Tensor, forward: Forward) -> Tensor:
            return super().run(streams_BTNE, forward).to(torch.promote_types(streams_BTNE.dtype, torch.float32))

    name: Literal["gated-streams-in-fp32"] = "gated-streams-in-fp32"  # type: ignore[assignment]
    caught_by = "bf16-and-fp32"
    also = ANYTHING

    def build(self, context: BuildContext) -> Any:
        return become(super().build(context), self.Runtime)


class WrongCycles(WithRuntime, HierarchicalSpec):
    """Base of blocks of stacks in cycles, with the runtime class `runtime_class`."""

    blocks: int = 1
    high_cycles: int = 2
    low_cycles: int = 2
    runtime_class: ClassVar[type[Hierarchical]]
    twin_class = HierarchicalSpec


class CyclesWithOneState(WrongCycles):
    """Use the states of the first cycle in all of them."""

    class Runtime(Hierarchical):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            low = self.low[0]

            def again(module: Any, inputs: Any) -> None:
                forward._calls = {}

            handle = low.register_forward_pre_hook(again)
            try:
                return super().forward(x_BTE, forward)
            finally:
                handle.remove()

    name: Literal["cycles-with-one-state"] = "cycles-with-one-state"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = ANYTHING


class LowStateOfTheText(WrongCycles):
    """Begin with the mean of the text as the low state."""

    class Runtime(Hierarchical):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE + x_BTE.mean(dim=1, keepdim=True), forward)

    name: Literal["low-state-of-the-text"] = "low-state-of-the-text"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "no-future-leak"
    also = ANYTHING


class NeverUsesTheHighStack(WrongCycles):
    """Return the low state."""

    class Runtime(Hierarchical):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            low_BTE = x_BTE + self.start.to(x_BTE.dtype)
            for block in self.low:
                low_BTE = block(low_BTE, forward)
            return self.low_norm(low_BTE)  # type: ignore[no-any-return]

    name: Literal["never-uses-the-high-stack"] = "never-uses-the-high-stack"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "gradients"
    also = ANYTHING
