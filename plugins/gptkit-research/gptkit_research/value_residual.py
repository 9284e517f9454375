"""Attention `value-residual`.

Shapes: B batch, H query heads, K key/value heads, T tokens, D head size, E model width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit_research.heads import GroupedHeadsSpec

__all__ = ["ValueResidualAttention", "ValueResidualSpec"]


class ValueResidualSpec(GroupedHeadsSpec):
    """Value residual learning (ResFormer): every layer adds the first layer's values to its own.

    Formula:
        v'_n = first · v_1 + own · v_n,  v'_1 = v_1
        y = W_o [head_1 … head_H],  head_h = softmax(q_h k_gᵀ / √d_head + mask) v'_g,  g = h // (n_heads / n_kv_heads)
    Shapes:
        (B, T, d_model) -> (B, T, d_model); cache: 2 · n_kv_heads · d_head values per token
    Paper:
        https://arxiv.org/abs/2410.17897
    Notes:
        The first layer of this attention publishes its values (`Forward.publish`) under the key
        `("value-residual", n_kv_heads, d_head)`; layers with heads of other shapes have a separate first layer.
    """

    name: Literal["value-residual"] = "value-residual"

    first: float = Field(0.5, description="Factor of the first layer's values.")
    own: float = Field(0.5, description="Factor of the layer's own values.")
    learned: bool = Field(True, description="Learn both factors in each layer, from these initial values.")

    def build(self, context: BuildContext) -> ValueResidualAttention:
        return ValueResidualAttention(self, context)


class ValueResidualAttention(SoftmaxAttention):
    """Runtime part of `ValueResidualSpec`. The cache holds the mixed values, so that decoding has no additional cost."""

    def __init__(self, spec: ValueResidualSpec, context: BuildContext) -> None:
        heads = spec.heads
        super().__init__(context, heads, scale=heads.d_head**-0.5, dropout=spec.dropout, window=spec.window)
        self.split = [heads.n_heads, heads.n_kv_heads, heads.n_kv_heads]
        self.d_head = heads.d_head
        self.key = ("value-residual", heads.n_kv_heads, heads.d_head)
        # Layers are built in order; the first one publishes its values, and mixes none.
        self.is_first = context.share(self.key, lambda: self.layer) == self.layer
        self.publishes = (self.key,) if self.is_first else ()
        self.reads = () if self.is_first else (self.key,)
        self.factors = [spec.first, spec.own]
        learned = spec.learned and not self.is_first
        self.mix = nn.Parameter(torch.tensor(self.factors)) if learned else None
        self.qkv = context.linear(context.d_model, sum(self.split) * heads.d_head, bias=False)
        """Rows: all query heads, then keys, then values; head by head."""
        self.output = context.linear(heads.n_heads * heads.d_head, context.d_model, bias=False)

    def initial(self) -> dict[str, Initial]:
        initial: dict[str, Initial] = {"output.weight": "output"}
        if self.mix is not None:
            initial["mix"] = lambda shape, generator: torch.tensor(self.factors)
        return initial

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        packed = self.qkv(x_BTE).view(n_batch, n_tokens, -1, self.d_head).transpose(1, 2)
        q_BHTD, k_BKTD, v_BKTD = packed.split(self.split, dim=1)
        if self.is_first:
            forward.publish(self, self.key, v_BKTD)
        else:
            first, own = self.factors if self.mix is None else self.mix.to(v_BKTD.dtype)
            v_BKTD = first * forward.read(self, self.key) + own * v_BKTD
        out_BHTD = self.attend(q_BHTD, k_BKTD, v_BKTD, forward)
        return self.output(out_BHTD.transpose(1, 2).reshape(n_batch, n_tokens, -1))  # type: ignore[no-any-return]
