"""Modules whose output has another type or shape, with other parameters, or that keep tensors of a text."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention
from gptkit.components.feedforward.modules.mlp import MLP
from gptkit.components.norm.modules.rms import RMSNorm
from gptkit.components.position.alibi import AlibiSpec
from gptkit.components.position.modules.alibi import AlibiPosition
from gptkit.components.router.modules.top_k_softmax import TopKSoftmax
from gptkit.nn.forward import Forward
from tests.mutants.attention import Wrong
from tests.mutants.ends import TokenEmbedding, WrongEmbedding
from tests.mutants.mutant import WithRuntime
from tests.mutants.vectors import PreNorm, WrongBlock, WrongFeedForward, WrongNorm, WrongRouter


class LastTokenOnly(Wrong):
    """Return the vector of the last token."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            return super().forward(x_BTE, forward)[:, -1]

    name: Literal["last-token-only"] = "last-token-only"
    runtime = Runtime
    caught_by = "output-shape"


class WithoutContext(Wrong):
    """Define forward without the forward context."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor) -> Tensor:  # type: ignore[override]
            return x_BTE

    name: Literal["without-context"] = "without-context"
    runtime = Runtime
    caught_by = "output-shape"


class ReturnsItsHidden(WrongFeedForward):
    """Return the hidden features as well."""

    class Runtime(MLP):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Any:
            return super().forward(x_BTE, forward), x_BTE

    name: Literal["returns-its-hidden"] = "returns-its-hidden"
    runtime = Runtime
    caught_by = "output-shape"


class ReturnsNothing(WrongNorm):
    """Compute the result without returning it."""

    class Runtime(RMSNorm):
        def forward(self, x: Tensor) -> Any:
            super().forward(x)

    name: Literal["returns-nothing"] = "returns-nothing"
    runtime = Runtime
    caught_by = "output-shape"


class SplitsBlock(WrongBlock):
    """Return the input and the change separately."""

    class Runtime(PreNorm):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Any:
            return [x_BTE, super().forward(x_BTE, forward)]

    name: Literal["splits-block"] = "splits-block"
    runtime = Runtime
    caught_by = "output-shape"


class TransposesRows(WrongEmbedding):
    """Exchange rows and tokens."""

    class Runtime(TokenEmbedding):
        def forward(self, ids_BT: Tensor, forward: Forward) -> Tensor:
            return super().forward(ids_BT, forward).transpose(0, 1)

    name: Literal["transposes-rows"] = "transposes-rows"
    runtime = Runtime
    caught_by = "output-shape"


class WeightsOnly(WrongRouter):
    """Return the weights without the experts."""

    class Runtime(TopKSoftmax):
        def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> Any:
            return super().forward(x_NE, forward, valid_N)[1]

    name: Literal["weights-only"] = "weights-only"
    runtime = Runtime
    caught_by = "output-shape"


class BiasWithoutHeads(WithRuntime, AlibiSpec):
    """Return a bias without the axis of heads."""

    class Runtime(AlibiPosition):
        def bias(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
            return super().bias(query_positions, key_positions)[:, 0]

    name: Literal["bias-without-heads"] = "bias-without-heads"
    runtime_class = Runtime
    twin_class = AlibiSpec
    caught_by = "output-shape"


class KeepsTheLastVector(Wrong):
    """Add the last vector of the previous call, which an attribute holds."""

    class Runtime(GroupedQueryAttention):
        def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            y_BTE = super().forward(x_BTE, forward)
            previous = vars(self).get("last_B1E")
            self.last_B1E = y_BTE[:, -1:]
            return y_BTE if previous is None or x_BTE.shape[1] > 1 else y_BTE + previous

    name: Literal["keeps-the-last-vector"] = "keeps-the-last-vector"
    runtime = Runtime
    caught_by = "keeps-no-text"
