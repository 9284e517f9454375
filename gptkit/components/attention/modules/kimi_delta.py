"""Runtime of `kimi-delta`.

Shapes: B batch, T tokens, E model width, H heads, K features of keys and queries, V features of values, F features that are
convolved (queries, keys and values of all heads), X features of all values, Y features of all keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.components.attention.modules.recurrence import draw, draw_step_bias, unit
from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.base import Attention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial, consecutive
from gptkit.ops.causal_conv import causal_conv, conv_tail
from gptkit.ops.channel_delta_rule import channel_delta_rule, channel_delta_step
from gptkit.ops.symbols import varies

if TYPE_CHECKING:
    from gptkit.components.attention.kimi_delta import KimiDeltaSpec

__all__ = ["KimiDelta"]


class KimiDelta(Attention):
    """Runtime of `kimi-delta`: computes chunks of tokens in training and for prompts, single tokens in decoding."""

    def __init__(self, spec: KimiDeltaSpec, context: BuildContext) -> None:
        super().__init__()
        assert spec.n_heads is not None
        self.n_heads, self.d_key, self.d_value, self.width = spec.n_heads, spec.d_key, spec.d_value, spec.conv_width
        self.floor = spec.decay_floor
        d_keys, d_values = spec.n_heads * spec.d_key, spec.n_heads * spec.d_value
        self.split = [d_keys, d_keys, d_values]
        d_conv = sum(self.split)
        self.qkv = context.linear(context.d_model, d_conv, bias=False)
        """Rows: all heads' queries, then keys, then values; head by head."""
        self.decay_down = _down(context, spec.decay_rank)
        self.decay = context.linear(spec.decay_rank or context.d_model, d_keys, bias=False)
        self.gate_down = _down(context, spec.gate_rank)
        self.gate = context.linear(spec.gate_rank or context.d_model, d_values, bias=False)
        self.strength = nn.Linear(context.d_model, spec.n_heads, bias=False)
        self.conv = nn.Conv1d(d_conv, d_conv, spec.conv_width, groups=d_conv, bias=False)
        self.decay_log = nn.Parameter(self.strength.weight.new_zeros(spec.n_heads))
        self.decay_bias = nn.Parameter(self.strength.weight.new_zeros(d_keys))
        self.norm = spec.norm.build(context, dim=spec.d_value)
        self.output = context.linear(d_values, context.d_model, bias=False)

    def initial(self) -> dict[str, Initial]:
        return {
            "output.weight": "output",
            "conv.weight": lambda shape, generator: draw(shape, generator, -(shape[-1] ** -0.5), shape[-1] ** -0.5),
            "decay_log": lambda shape, generator: draw(shape, generator, 1, 16).log(),
            "decay_bias": draw_step_bias,
        }

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        return {
            "qkv.weight": consecutive(("query", "key", "value"), self.split),
            "gate.weight": {"gate": (slice(None),)},
            "output.weight": {"output": (slice(None),)},
        }

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        state = cast("RecurrentState | None", forward.state(self))
        tail, memory_BHKV = (None, None) if state is None or state.tensors is None else state.tensors
        x_BTF = self.qkv(x_BTE)
        if forward.valid_BT is not None:
            # Padding adds zeros to an empty state, which therefore stays empty.
            x_BTF = x_BTF.masked_fill(~forward.valid_BT[..., None], 0)
        documents = None if forward.documents_BT is None else forward.positions
        mixed_BTF = F.silu(causal_conv(x_BTF, self.conv.weight, tail, documents))

        wide = torch.promote_types(x_BTE.dtype, torch.float32)
        parts = torch.split(mixed_BTF.to(wide), self.split, dim=-1)
        q, k, v = (part.view(n_batch, n_tokens, self.n_heads, -1).transpose(1, 2) for part in parts)
        q_BHTK, k_BHTK, v_BHTV = unit(q) * self.d_key**-0.5, unit(k), v
        g_BHTK = self._decays(x_BTE, wide).transpose(1, 2)
        b_BHT = self.strength(x_BTE).to(wide).sigmoid().transpose(1, 2)

        if memory_BHKV is None:
            memory_BHKV = v_BHTV.new_zeros(n_batch, self.n_heads, self.d_key, self.d_value)
        if not varies(n_tokens) and n_tokens == 1:
            q_BHK, k_BHK, v_BHV, g_BHK, b_BH = (x[:, :, 0] for x in (q_BHTK, k_BHTK, v_BHTV, g_BHTK, b_BHT))
            out_BHV, memory_BHKV = channel_delta_step(q_BHK, k_BHK, v_BHV, g_BHK, b_BH, memory_BHKV)
            out_BHTV = out_BHV[:, :, None]
        else:
            segments = None if documents is None else (documents == 0).cumsum(dim=1)
            out_BHTV, memory_BHKV = channel_delta_rule(
                q_BHTK, k_BHTK, v_BHTV, g_BHTK, b_BHT, memory_BHKV, segments_BT=segments
            )
        if state is not None:
            state.update(n_tokens, conv_tail(x_BTF, self.width, tail), memory_BHKV)
        z_BTX = self.gate(x_BTE if self.gate_down is None else self.gate_down(x_BTE))
        out_BTX = self.norm(out_BHTV.transpose(1, 2).to(x_BTE.dtype)).flatten(2)
        return self.output((out_BTX * z_BTX.to(wide).sigmoid()).to(x_BTE.dtype))  # type: ignore[no-any-return]

    def _decays(self, x_BTE: Tensor, wide: torch.dtype) -> Tensor:
        """Return the logarithms of the decays, (B, T, H, K)."""
        a_BTY = self.decay(x_BTE if self.decay_down is None else self.decay_down(x_BTE))
        a_BTHK = torch.unflatten(a_BTY.to(wide) + self.decay_bias.to(wide), -1, (self.n_heads, self.d_key))
        rate_H1 = self.decay_log.to(wide).exp()[:, None]
        if self.floor is not None:
            return self.floor * (rate_H1 * a_BTHK).sigmoid()
        return -rate_H1 * F.softplus(a_BTHK)

    def new_state(self, allocation: Allocation) -> RecurrentState:
        wide = torch.promote_types(allocation.dtype, torch.float32)
        return allocation.recurrent(
            ((self.width - 1, sum(self.split)), allocation.dtype),
            ((self.n_heads, self.d_key, self.d_value), wide),
        )


def _down(context: BuildContext, rank: int | None) -> nn.Linear | None:
    return None if rank is None else context.linear(context.d_model, rank, bias=False)
