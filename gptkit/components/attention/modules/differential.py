"""Runtime of `differential`.

Shapes: B batch, H heads, J key/value heads, R heads that share one (H = J · R), G queries of all heads (two for each head),
T tokens of this call, D head size, A the two maps of a head, V features of a value (two head sizes), E model width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.cache.state import TokenState
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial, consecutive

if TYPE_CHECKING:
    from gptkit.components.attention.differential import DifferentialSpec

__all__ = ["DifferentialAttention"]

_LAMBDAS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")


class DifferentialAttention(SoftmaxAttention):
    """Runtime of `differential`: both maps of all heads in one call of the backend."""

    def __init__(self, spec: DifferentialSpec, context: BuildContext) -> None:
        heads = spec.head_shape()
        super().__init__(context, heads, scale=heads.d_head**-0.5, dropout=spec.dropout, window=spec.window)
        self.n_kv_heads, self.d_head = heads.n_kv_heads // 2, heads.d_head
        self.split = [n_heads * heads.d_head for n_heads in (heads.n_heads, heads.n_kv_heads, heads.n_kv_heads)]
        self.qkv = context.linear(context.d_model, sum(self.split), bias=spec.qkv_bias)
        """Rows: queries, keys, values; head by head, the two queries (or keys) of a head in succession."""
        self.norm = spec.norm.build(context, dim=2 * heads.d_head)
        self.output = context.linear(heads.n_heads * heads.d_head, context.d_model, bias=spec.output_bias)
        self.lambda_init = spec.start(self.layer)
        self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2 = (
            nn.Parameter(torch.zeros(heads.d_head)) for _ in _LAMBDAS
        )

    def initial(self) -> dict[str, Initial]:
        return {"output.weight": "output", **dict.fromkeys(_LAMBDAS, _tenth)}

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        return {
            "qkv.weight": consecutive(("query", "key", "value"), self.split),
            "output.weight": {"output": (slice(None),)},
        }

    def current_lambda(self) -> Tensor:
        """λ, a scalar."""
        first = (self.lambda_q1 * self.lambda_k1).sum().exp()
        return first - (self.lambda_q2 * self.lambda_k2).sum().exp() + self.lambda_init

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        q, k, v = self.qkv(x_BTE).split_with_sizes(self.split, dim=-1)
        # The first queries of all heads that share keys come before their second ones, as the backends group them.
        q_BTJRAD = torch.unflatten(q, -1, (self.n_kv_heads, -1, 2, self.d_head))
        q_BGTD = q_BTJRAD.permute(0, 2, 4, 3, 1, 5).flatten(1, 3)
        k_BGTD = torch.unflatten(k, -1, (-1, self.d_head)).transpose(1, 2)
        v_BJTV = torch.unflatten(v, -1, (-1, 2 * self.d_head)).transpose(1, 2)
        q_BGTD, k_BGTD = self.rotate(q_BGTD, k_BGTD, forward)
        state = cast("TokenState | None", forward.state(self))
        offset: KeyOffset = forward.offset
        if state is not None:
            offset, (k_BGTD, v_BJTV) = state.append(k_BGTD, v_BJTV)
        both_BGTV = self.score(q_BGTD, k_BGTD, v_BJTV.repeat_interleave(2, dim=1), forward, offset)
        both_BJARTV = torch.unflatten(both_BGTV, 1, (self.n_kv_heads, 2, -1))
        factor = self.current_lambda().to(both_BGTV.dtype)
        out_BHTV = (both_BJARTV[:, :, 0] - factor * both_BJARTV[:, :, 1]).flatten(1, 2)
        out_BHTV = self.norm(out_BHTV) * (1 - self.lambda_init)
        return self.output(out_BHTV.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    @property
    def cached_shapes(self) -> tuple[tuple[int, int], ...]:
        return (2 * self.n_kv_heads, self.d_key), (self.n_kv_heads, 2 * self.d_head)


def _tenth(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return 0.1 * torch.randn(shape, generator=generator)
