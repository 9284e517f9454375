"""Runtime of `stacked-heads`.

Shapes: B batch, T tokens, H heads, D width of a head, E model width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.forward import Forward

if TYPE_CHECKING:
    from gptkit.components.attention.stacked_heads import StackedHeadsSpec

__all__ = ["Head", "StackedHeads"]


class Head(nn.Module):
    """The three projections of a head."""

    def __init__(self, spec: StackedHeadsSpec, context: BuildContext, d_head: int) -> None:
        super().__init__()
        self.W_query = context.linear(context.d_model, d_head, bias=spec.qkv_bias)
        self.W_key = context.linear(context.d_model, d_head, bias=spec.qkv_bias)
        self.W_value = context.linear(context.d_model, d_head, bias=spec.qkv_bias)

    def forward(self, x_BTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the query, key and value of each token, (B, T, D)."""
        return self.W_query(x_BTE), self.W_key(x_BTE), self.W_value(x_BTE)


class StackedHeads(SoftmaxAttention):
    """Runtime of `stacked-heads`, with projections of each head, for teaching."""

    def __init__(self, spec: StackedHeadsSpec, context: BuildContext) -> None:
        heads = spec.heads(context)
        super().__init__(context, heads, scale=spec.scale or heads.d_head**-0.5, dropout=spec.dropout, window=spec.window)
        self.stack = nn.ModuleList(Head(spec, context, heads.d_head) for _ in range(heads.n_heads))

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        names = {"query": "W_query", "key": "W_key", "value": "W_value"}
        return {
            f"stack.{head}.{name}.weight": {kind: (slice(None),)}
            for head in range(self.heads.n_heads)
            for kind, name in names.items()
        }

    def project(self, x_BTE: Tensor, forward: Forward) -> tuple[Tensor, Tensor, Tensor]:
        projected = [head(x_BTE) for head in self.stack]
        q_BHTD, k_BHTD, v_BHTD = (torch.stack(each, dim=1) for each in zip(*projected, strict=True))
        return q_BHTD, k_BHTD, v_BHTD

    def combine(self, out_BHTD: Tensor, x_BTE: Tensor) -> Tensor:
        return out_BHTD.transpose(1, 2).flatten(2)
