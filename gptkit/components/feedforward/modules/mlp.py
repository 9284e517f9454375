"""The torch modules of `MLPSpec`.

Shapes: B batch, T tokens, M rows sorted by expert, E model width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.addition import TakesAddition
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.stacked import StackedFeedForward, StackedLinear
from gptkit.nn.tensor_parallel import Divided, Division
from gptkit.ops.dropout import dropout
from gptkit.ops.grouped import Groups

if TYPE_CHECKING:
    from gptkit.components.feedforward.mlp import MLPSpec

__all__ = ["MLP", "StackedMLP"]


class MLP(FeedForward, TakesAddition):
    """Up-projection, activation, down-projection."""

    def __init__(self, spec: MLPSpec, context: BuildContext) -> None:
        super().__init__()
        d_hidden = spec.hidden(context)
        self.up = context.linear(context.d_model, d_hidden, bias=spec.bias)
        self.activation = spec.activation.build(context)
        self.dropout = spec.dropout
        self.down = context.linear(d_hidden, context.d_model, bias=spec.bias)

    def initial(self) -> dict[str, Initial]:
        return {"down.weight": "output"}

    def divisions(self) -> Mapping[str, Division]:
        return {} if self.has_addition else _divisions(self.down.in_features)

    @property
    def addition_widths(self) -> tuple[int, ...]:
        return (self.down.in_features,)

    def forward(self, x_BTE: Tensor, forward: Forward, added_BTX: Tensor | None = None) -> Tensor:
        up_BTX = self.up(x_BTE) if added_BTX is None else self.up(x_BTE) + added_BTX
        y_BTE: Tensor = self.down(dropout(self.activation(up_BTX), self.dropout, self.training))
        return y_BTE


class StackedMLP(StackedFeedForward):
    """Experts of a mixture, each an `MLP`, with stacked weights."""

    def __init__(self, spec: MLPSpec, context: BuildContext, activation: nn.Module, n_experts: int) -> None:
        super().__init__()
        d_hidden = spec.hidden(context)
        self.up = StackedLinear(n_experts, context.d_model, d_hidden, bias=spec.bias)
        self.activation = activation
        self.dropout = spec.dropout
        self.down = StackedLinear(n_experts, d_hidden, context.d_model, bias=spec.bias)

    def initial(self) -> dict[str, Initial]:
        return {"down.weight": "output"}

    def divisions(self) -> Mapping[str, Division]:
        return _divisions(self.down.in_features)

    def forward(self, x_ME: Tensor, groups: Groups, forward: Forward) -> Tensor:
        y_ME: Tensor = self.down(dropout(self.activation(self.up(x_ME, groups)), self.dropout, self.training), groups)
        return y_ME


def _divisions(d_hidden: int) -> dict[str, Division]:
    """Return the division by hidden features, of one feed-forward or of a stack."""
    sections = {"hidden features": d_hidden}
    return {
        "up.weight": Divided(-2, sections),
        "up.bias": Divided(-1, sections),
        "down.weight": Divided(-1, {"hidden features": d_hidden}),
        "down.bias": "added",
    }
