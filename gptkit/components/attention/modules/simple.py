"""Runtime of `simple`.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.forward import Forward

if TYPE_CHECKING:
    from gptkit.components.attention.simple import SimpleSpec

__all__ = ["SimpleAttention"]


class SimpleAttention(SoftmaxAttention):
    """Runtime of `simple`: queries, keys and values are the inputs themselves."""

    def __init__(self, spec: SimpleSpec, context: BuildContext) -> None:
        scale = context.d_model**-0.5 if spec.scaled else 1.0
        super().__init__(context, HeadShape(1, 1, context.d_model), scale=scale, dropout=spec.dropout, window=spec.window)

    def project(self, x_BTE: Tensor, forward: Forward) -> tuple[Tensor, Tensor, Tensor]:
        x_B1TE = x_BTE[:, None]
        return x_B1TE, x_B1TE, x_B1TE

    def combine(self, out_B1TE: Tensor, x_BTE: Tensor) -> Tensor:
        return out_B1TE[:, 0]
