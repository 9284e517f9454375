"""Attention `differential`.

Shapes: B batch, H heads, G query and key heads (two for each head), T tokens of this call, S keys in view, D head size,
V features of a value (two head sizes), E model width.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.core.component import component
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.position import HeadShape
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.cache.state import TokenState
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit_research.heads import HeadsSpec

__all__ = ["DifferentialAttention", "DifferentialSpec"]

_LAMBDAS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")


class DifferentialSpec(HeadsSpec):
    """Differential attention: the difference of two softmax maps, which cancels attention noise common to both.

    Formula:
        head = (softmax(q₁ k₁ᵀ / √d_head + mask) − λ softmax(q₂ k₂ᵀ / √d_head + mask)) v
        λ = exp(λ_q1 · λ_k1) − exp(λ_q2 · λ_k2) + λ_init,  λ_init = 0.8 − 0.6 exp(−0.3 layer), layers from 0
        y = W_o [(1 − λ_init) norm(head_1) … (1 − λ_init) norm(head_H)]
    Shapes:
        (B, T, d_model) -> (B, T, d_model); a head has 2 queries, 2 keys of d_head and a value of 2 · d_head features;
        cache: 4 · n_heads · d_head values per token
    Paper:
        https://arxiv.org/abs/2410.05258
    Notes:
        λ and its four vectors are shared by the heads of a layer. A head is as wide as two heads of other attentions. Its
        attention weights, if requested, are its two maps in succession.
    """

    name: Literal["differential"] = "differential"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width", "bias", "content_bias"})
    parts_per_head: ClassVar[int] = 2

    norm: NormSpec = component("rms", description="Norm of each head's output.")
    lambda_init: float | None = Field(None, ge=0, lt=1, description="λ_init; by default it depends on the layer's index.")

    @property
    def heads(self) -> HeadShape:
        assert self.n_heads is not None
        assert self.d_head is not None
        return HeadShape(2 * self.n_heads, 2 * self.n_heads, self.d_head)

    def build(self, context: BuildContext) -> DifferentialAttention:
        return DifferentialAttention(self, context)


class DifferentialAttention(SoftmaxAttention):
    """Runtime part of `DifferentialSpec`: both maps of all heads in one call of the backend."""

    def __init__(self, spec: DifferentialSpec, context: BuildContext) -> None:
        heads = spec.heads
        super().__init__(context, heads, scale=heads.d_head**-0.5, dropout=spec.dropout, window=spec.window)
        self.n_heads, self.d_head = heads.n_heads // 2, heads.d_head
        self.qkv = context.linear(context.d_model, 3 * heads.n_heads * heads.d_head, bias=False)
        """Rows: queries, keys, values; head by head, the two queries of a head in succession."""
        self.norm = spec.norm.build(context, dim=2 * heads.d_head)
        self.output = context.linear(heads.n_heads * heads.d_head, context.d_model, bias=False)
        by_depth = 0.8 - 0.6 * math.exp(-0.3 * self.layer)
        self.lambda_init = by_depth if spec.lambda_init is None else spec.lambda_init
        self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2 = (
            nn.Parameter(torch.zeros(heads.d_head)) for _ in _LAMBDAS
        )

    def initial(self) -> dict[str, Initial]:
        return {"output.weight": "output", **dict.fromkeys(_LAMBDAS, _tenth)}

    def current_lambda(self) -> Tensor:
        """λ, a scalar."""
        first = (self.lambda_q1 * self.lambda_k1).sum().exp()
        return first - (self.lambda_q2 * self.lambda_k2).sum().exp() + self.lambda_init

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        q, k, v = self.qkv(x_BTE).chunk(3, dim=-1)
        q_BGTD, k_BGTD = (part.view(n_batch, n_tokens, -1, self.d_head).transpose(1, 2) for part in (q, k))
        v_BHTV = v.view(n_batch, n_tokens, self.n_heads, -1).transpose(1, 2)
        q_BGTD, k_BGTD = self.rotate(q_BGTD, k_BGTD, forward)
        state = cast("TokenState | None", forward.state(self))
        offset: KeyOffset = forward.offset
        if state is not None:
            offset, (k_BGTD, v_BHTV) = state.append(k_BGTD, v_BHTV)
        both_BGTV = self.score(q_BGTD, k_BGTD, v_BHTV.repeat_interleave(2, dim=1), forward, offset)
        factor = self.current_lambda().to(both_BGTV.dtype)
        out_BHTV = both_BGTV[:, 0::2] - factor * both_BGTV[:, 1::2]
        out_BHTV = self.norm(out_BHTV) * (1 - self.lambda_init)
        return self.output(out_BHTV.transpose(1, 2).reshape(n_batch, n_tokens, -1))  # type: ignore[no-any-return]

    @property
    def cached_shapes(self) -> tuple[tuple[int, int], ...]:
        return (2 * self.n_heads, self.d_key), (self.n_heads, 2 * self.d_head)


def _tenth(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return 0.1 * torch.randn(shape, generator=generator)
