"""Runtime of `convolutional`.

Shapes: B batch, H query heads, K key/value heads, G query heads of a key/value head, T tokens, D head size, C = (H + K) · D
features of all queries and keys, E model width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.softmax import SoftmaxAttention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.composite import CompositeState
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.state import TokenState
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial, consecutive
from gptkit.nn.token_shift import shifted, without_padding
from gptkit.ops.causal_conv import causal_conv, conv_tail

if TYPE_CHECKING:
    from gptkit.components.attention.convolutional import ConvolutionalSpec

__all__ = ["ConvolutionalAttention"]


class ConvolutionalAttention(SoftmaxAttention):
    """Runtime of `convolutional`. Its state: keys and values, the last inputs of both convolutions, the last token."""

    def __init__(self, spec: ConvolutionalSpec, context: BuildContext) -> None:
        heads = spec.head_shape()
        super().__init__(
            context, heads, scale=spec.scale or heads.d_head**-0.5, dropout=spec.dropout, window=spec.sliding_window
        )
        self.d_model = context.d_model
        d_queries, d_keys = heads.n_heads * heads.d_head, heads.n_kv_heads * heads.d_head
        self.widths = [d_queries, d_keys, d_keys // 2]
        self.qkv = context.linear(context.d_model, sum(self.widths), bias=spec.qkv_bias)
        """Rows: all query heads, keys, and the first half of the values."""
        self.previous_value = context.linear(context.d_model, d_keys // 2, bias=spec.qkv_bias)
        """The second half of the values, of the previous token."""
        d_conv = d_queries + d_keys
        self.feature_conv = nn.Conv1d(d_conv, d_conv, spec.feature_width, groups=d_conv)
        self.head_conv = nn.Conv1d(d_conv, d_conv, spec.head_width, groups=heads.n_heads + heads.n_kv_heads)
        self.q_norm, self.k_norm = (spec.norm.build(context, dim=heads.d_head) for _ in range(2))
        self.key_scale = nn.Parameter(torch.ones(heads.n_kv_heads))
        self.output = context.linear(d_queries, context.d_model, bias=spec.output_bias)

    def initial(self) -> dict[str, Initial]:
        initial: dict[str, Initial] = {"output.weight": "output", "key_scale": "ones"}
        for name in ("feature_conv", "head_conv"):
            initial |= {f"{name}.weight": _uniform, f"{name}.bias": "zeros"}
        return initial

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        return {
            "qkv.weight": consecutive(("query", "key", "value"), self.widths),
            "previous_value.weight": {"value": (slice(None),)},
            "output.weight": {"output": (slice(None),)},
        }

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        state = cast("CompositeState | None", forward.state(self))
        recent = None if state is None else cast("RecurrentState", state["recent"])
        q_BHTD, k_BKTD, v_BKTD = self._projected(x_BTE, recent, forward)
        q_BHTD, k_BKTD = self.rotate(q_BHTD, k_BKTD, forward)
        offset: KeyOffset = forward.offset
        if state is not None:
            offset, (k_BKTD, v_BKTD) = cast("TokenState", state["tokens"]).append(k_BKTD, v_BKTD)
        out_BHTD = self.score(q_BHTD, k_BKTD, v_BKTD, forward, offset)
        return self.output(out_BHTD.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _projected(self, x_BTE: Tensor, recent: RecurrentState | None, forward: Forward) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values without position, and update the state of recent tokens."""
        tails: tuple[Tensor | None, ...] = (None, None, None)
        if recent is not None and recent.tensors is not None:
            tails = recent.tensors
        # Padding is like the time before a text: it leaves an empty state empty.
        x_BTE = without_padding(x_BTE, forward)
        qk_BTC, v_BTX = self.qkv(x_BTE).split_with_sizes([sum(self.widths[:2]), self.widths[2]], dim=-1)
        if self.qkv.bias is not None:
            qk_BTC = without_padding(qk_BTC, forward)
        positions = None if forward.documents_BT is None else forward.positions
        u_BTC = causal_conv(qk_BTC, self.feature_conv.weight, tails[0], positions)
        mixed_BTC = causal_conv(u_BTC, self.head_conv.weight, tails[1], positions) + self._conv_bias()
        previous_BTX = self.previous_value(shifted(x_BTE, tails[2], forward))
        if recent is not None:
            feature_tail = conv_tail(qk_BTC, self.feature_conv.kernel_size[0], tails[0])
            head_tail = conv_tail(u_BTC, self.head_conv.kernel_size[0], tails[1])
            recent.update(x_BTE.shape[1], feature_tail, head_tail, x_BTE[:, -1:])
        q_BTHD, k_BTKD = self._heads(qk_BTC)
        groups = self.heads.n_heads // self.heads.n_kv_heads
        mean_BTKGD = (torch.unflatten(q_BTHD, 2, (-1, groups)) + k_BTKD[:, :, :, None]) * 0.5
        mixed_q_BTHD, mixed_k_BTKD = self._heads(mixed_BTC)
        q_BTHD = self.q_norm(mixed_q_BTHD + mean_BTKGD.flatten(2, 3))
        k_BTKD = self.k_norm(mixed_k_BTKD + mean_BTKGD.mean(dim=3)) * self.key_scale.to(x_BTE.dtype)[:, None]
        v_BTKD = torch.unflatten(torch.cat((v_BTX, previous_BTX), dim=-1), -1, (-1, self.heads.d_head))
        return q_BTHD.transpose(1, 2), k_BTKD.transpose(1, 2), v_BTKD.transpose(1, 2)

    def _heads(self, x_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """Split into query heads (B, T, H, D) and key heads (B, T, K, D)."""
        heads = self.heads
        x_BTLD = torch.unflatten(x_BTC, -1, (-1, heads.d_head))
        return x_BTLD[:, :, : heads.n_heads], x_BTLD[:, :, heads.n_heads :]

    def _conv_bias(self) -> Tensor:
        """Return what both biases add to the result: the second convolution sees the first bias at each of its tokens."""
        weight_LDDW = torch.unflatten(self.head_conv.weight, 0, (-1, self.heads.d_head))
        first_LD = torch.unflatten(cast("Tensor", self.feature_conv.bias), 0, (-1, self.heads.d_head))
        return torch.einsum("lodw,ld->lo", weight_LDDW, first_LD).flatten() + cast("Tensor", self.head_conv.bias)

    def new_state(self, allocation: Allocation) -> CompositeState:
        d_conv, dtype = sum(self.widths[:2]), allocation.dtype
        tails = [((conv.kernel_size[0] - 1, d_conv), dtype) for conv in (self.feature_conv, self.head_conv)]
        tokens = super().new_state(allocation)
        assert tokens is not None
        return CompositeState(tokens=tokens, recent=allocation.recurrent(*tails, ((1, self.d_model), dtype)))


def _uniform(shape: torch.Size, generator: torch.Generator) -> Tensor:
    bound = (shape[1] * shape[2]) ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
