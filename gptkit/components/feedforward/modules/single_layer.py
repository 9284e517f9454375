"""Runtime module of `single-layer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward

if TYPE_CHECKING:
    from gptkit.components.feedforward.single_layer import SingleLayerSpec

__all__ = ["SingleLayer"]


class SingleLayer(FeedForward):
    """Projection and activation."""

    def __init__(self, spec: SingleLayerSpec, context: BuildContext) -> None:
        super().__init__()
        self.projection = context.linear(context.d_model, context.d_model, bias=spec.bias)
        self.activation = spec.activation.build(context)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        y_BTE: Tensor = self.activation(self.projection(x_BTE))
        return y_BTE
