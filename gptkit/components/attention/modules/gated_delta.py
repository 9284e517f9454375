"""Runtime of `gated-delta`.

Shapes: B batch, T tokens, E model width, H value heads, K features of keys and queries, V features of values,
F features that are convolved (queries, keys and values of all heads).
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
from gptkit.ops.delta_rule import gated_delta_rule, gated_delta_step
from gptkit.ops.symbols import varies

if TYPE_CHECKING:
    from gptkit.components.attention.gated_delta import GatedDeltaSpec

__all__ = ["GatedDelta"]


class GatedDelta(Attention):
    """Runtime of `gated-delta`: computes chunks of tokens in training and for prompts, single tokens in decoding."""

    def __init__(self, spec: GatedDeltaSpec, context: BuildContext) -> None:
        super().__init__()
        assert spec.n_heads is not None
        assert spec.n_value_heads is not None
        self.n_heads, self.n_value_heads = spec.n_heads, spec.n_value_heads
        self.d_key, self.d_value, self.width = spec.d_key, spec.d_value, spec.conv_width
        d_keys, d_values = spec.n_heads * spec.d_key, spec.n_value_heads * spec.d_value
        self.write_scale = 2.0 if spec.negative_eigenvalues else 1.0
        self.split = [d_keys, d_keys, d_values]
        d_conv = sum(self.split)
        self.qkvz = context.linear(context.d_model, d_conv + d_values, bias=False)
        """Rows: all heads' queries, then keys, then values, then gates; head by head."""
        self.rates = nn.Linear(context.d_model, 2 * spec.n_value_heads, bias=False)
        """Rows: the write strength β of each value head, then its decay."""
        self.conv = nn.Conv1d(d_conv, d_conv, spec.conv_width, groups=d_conv, bias=False)
        self.decay_log = nn.Parameter(self.rates.weight.new_zeros(spec.n_value_heads))
        self.decay_bias = nn.Parameter(self.rates.weight.new_zeros(spec.n_value_heads))
        self.norm = spec.norm.build(context, dim=spec.d_value)
        self.output = context.linear(d_values, context.d_model, bias=False)

    def initial(self) -> dict[str, Initial]:
        return {
            "output.weight": "output",
            "conv.weight": lambda shape, generator: draw(shape, generator, -(shape[-1] ** -0.5), shape[-1] ** -0.5),
            "decay_log": lambda shape, generator: draw(shape, generator, 0.01, 16).log(),
            "decay_bias": draw_step_bias,
        }

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        return {
            "qkvz.weight": consecutive(("query", "key", "value", "gate"), [*self.split, self.split[2]]),
            "output.weight": {"output": (slice(None),)},
        }

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        state = cast("RecurrentState | None", forward.state(self))
        tail, memory_BHKV = (None, None) if state is None or state.tensors is None else state.tensors
        x_BTF, z_BTX = self.qkvz(x_BTE).split([sum(self.split), self.split[2]], dim=-1)
        if forward.valid_BT is not None:
            # Padding adds zeros to an empty state, which therefore stays empty.
            x_BTF = x_BTF.masked_fill(~forward.valid_BT[..., None], 0)
        documents = None if forward.documents_BT is None else forward.positions
        mixed_BTF = F.silu(causal_conv(x_BTF, self.conv.weight, tail, documents))

        wide = torch.promote_types(x_BTE.dtype, torch.float32)
        heads = (self.n_heads, self.n_heads, self.n_value_heads)
        parts = torch.split(mixed_BTF.to(wide), self.split, dim=-1)
        q, k, v = (part.view(n_batch, n_tokens, n, -1) for part, n in zip(parts, heads, strict=True))
        repeats = self.n_value_heads // self.n_heads
        q_BHTK = (unit(q) * self.d_key**-0.5).repeat_interleave(repeats, dim=2).transpose(1, 2)
        k_BHTK = unit(k).repeat_interleave(repeats, dim=2).transpose(1, 2)
        v_BHTV = v.transpose(1, 2)
        b_BTH, a_BTH = self.rates(x_BTE).to(wide).chunk(2, dim=-1)
        g_BHT = -(self.decay_log.to(wide).exp() * F.softplus(a_BTH + self.decay_bias.to(wide))).transpose(1, 2)
        b_BHT = self.write_scale * b_BTH.sigmoid().transpose(1, 2)

        if memory_BHKV is None:
            memory_BHKV = v_BHTV.new_zeros(n_batch, self.n_value_heads, self.d_key, self.d_value)
        if not varies(n_tokens) and n_tokens == 1:
            q_BHK, k_BHK, v_BHV, g_BH, b_BH = (x[:, :, 0] for x in (q_BHTK, k_BHTK, v_BHTV, g_BHT, b_BHT))
            out_BHV, memory_BHKV = gated_delta_step(q_BHK, k_BHK, v_BHV, g_BH, b_BH, memory_BHKV)
            out_BHTV = out_BHV[:, :, None]
        else:
            segments = None if documents is None else (documents == 0).cumsum(dim=1)
            out_BHTV, memory_BHKV = gated_delta_rule(q_BHTK, k_BHTK, v_BHTV, g_BHT, b_BHT, memory_BHKV, segments_BT=segments)
        if state is not None:
            state.update(n_tokens, conv_tail(x_BTF, self.width, tail), memory_BHKV)
        out_BTHV = self.norm(out_BHTV.transpose(1, 2).to(x_BTE.dtype))
        gated_BTX = out_BTHV.flatten(2) * F.silu(z_BTX.to(wide))
        return self.output(gated_BTX.to(x_BTE.dtype))  # type: ignore[no-any-return]

    def new_state(self, allocation: Allocation) -> RecurrentState:
        wide = torch.promote_types(allocation.dtype, torch.float32)
        return allocation.recurrent(
            ((self.width - 1, sum(self.split)), allocation.dtype),
            ((self.n_value_heads, self.d_key, self.d_value), wide),
        )
