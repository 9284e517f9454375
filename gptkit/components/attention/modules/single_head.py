"""Runtime of `single-head`.

Shapes: B batch, T tokens, D width of the head, E model width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial

if TYPE_CHECKING:
    from gptkit.components.attention.single_head import SingleHeadSpec

__all__ = ["SingleHeadAttention"]


class SingleHeadAttention(SoftmaxAttention):
    """Runtime of `single-head`, with three separate projections, for teaching."""

    def __init__(self, spec: SingleHeadSpec, context: BuildContext) -> None:
        assert spec.d_head is not None
        heads = HeadShape(1, 1, spec.d_head)
        super().__init__(context, heads, scale=spec.scale or spec.d_head**-0.5, dropout=spec.dropout, window=spec.window)
        self.W_query = context.linear(context.d_model, spec.d_head, bias=spec.qkv_bias)
        self.W_key = context.linear(context.d_model, spec.d_head, bias=spec.qkv_bias)
        self.W_value = context.linear(context.d_model, spec.d_head, bias=spec.qkv_bias)
        self.W_output = context.linear(spec.d_head, context.d_model, bias=False) if spec.output else None

    def initial(self) -> dict[str, Initial]:
        return {} if self.W_output is None else {"W_output.weight": "output"}

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        whole = {"query": "W_query", "key": "W_key", "value": "W_value"}
        if self.W_output is not None:
            whole["output"] = "W_output"
        return {f"{name}.weight": {kind: (slice(None),)} for kind, name in whole.items()}

    def project(self, x_BTE: Tensor, forward: Forward) -> tuple[Tensor, Tensor, Tensor]:
        return self.W_query(x_BTE)[:, None], self.W_key(x_BTE)[:, None], self.W_value(x_BTE)[:, None]

    def combine(self, out_B1TD: Tensor, x_BTE: Tensor) -> Tensor:
        out_BTD = out_B1TD[:, 0]
        return out_BTD if self.W_output is None else self.W_output(out_BTD)
