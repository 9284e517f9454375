"""Blocks that attend to earlier outputs, with one error each."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gptkit.components.block.attention_residuals import AttentionResidualsSpec
from gptkit.components.block.modules.attention_residuals import AttentionResiduals
from gptkit.nn.forward import Forward
from tests.mutants.mutant import ANYTHING, WithRuntime


class WrongSources(WithRuntime, AttentionResidualsSpec):
    """Base of blocks with the runtime class `runtime_class`."""

    runtime_class: ClassVar[type[AttentionResiduals]]
    twin_class = AttentionResidualsSpec


class WeighsByFollowingTokens(WrongSources):
    """Weigh sources by the mean over tokens."""

    class Runtime(AttentionResiduals):
        def attend(self, sources: tuple[Tensor, ...], query_E: Tensor) -> Tensor:
            scores = torch.stack([(source @ query_E).mean(dim=1, keepdim=True) for source in sources])
            return (scores.softmax(dim=0)[..., None] * torch.stack(sources)).sum(dim=0)

    name: Literal["weighs-by-following-tokens"] = "weighs-by-following-tokens"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "no-future-leak"
    also = ANYTHING


class WeighsByOtherRows(WrongSources):
    """Weigh sources by the mean over rows."""

    class Runtime(AttentionResiduals):
        def attend(self, sources: tuple[Tensor, ...], query_E: Tensor) -> Tensor:
            scores = torch.stack([(source @ query_E).mean(dim=0, keepdim=True) for source in sources])
            return (scores.softmax(dim=0)[..., None] * torch.stack(sources)).sum(dim=0)

    name: Literal["weighs-by-other-rows"] = "weighs-by-other-rows"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "rows-are-independent"
    also = ANYTHING


class IgnoresItsQueries(WrongSources):
    """Return the plain mean of the sources."""

    class Runtime(AttentionResiduals):
        def attend(self, sources: tuple[Tensor, ...], query_E: Tensor) -> Tensor:
            return torch.stack(sources).mean(dim=0)

    name: Literal["ignores-its-queries"] = "ignores-its-queries"  # type: ignore[assignment]
    runtime_class = Runtime
    caught_by = "gradients"
    also = ANYTHING


class ConvolvesWithoutState(WrongSources):
    """Forget the last outputs of branches from one call to the next."""

    class Runtime(AttentionResiduals):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            for conv in (self.attention_conv, self.feedforward_conv):
                state: Any = None if conv is None else forward.state(conv)
                if state is not None:
                    state.tensors = None
            forward._calls = {}
            return super().forward(x_BTE, forward)

    name: Literal["convolves-without-state"] = "convolves-without-state"  # type: ignore[assignment]
    output_conv: int | None = 3
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = ANYTHING
