"""Runtime of `mamba2`.

Shapes: B batch, T tokens, E model width, H heads, P features of a value, G groups, N features of keys and queries,
F features that are convolved (values of all heads, keys and queries of all groups), X features of all values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.components.attention.modules.recurrence import draw, draw_step_bias
from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.base import Attention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial, consecutive
from gptkit.ops.causal_conv import causal_conv, conv_tail
from gptkit.ops.rms_norm import rms_norm
from gptkit.ops.state_space import state_space_scan, state_space_step
from gptkit.ops.symbols import varies

if TYPE_CHECKING:
    from gptkit.components.attention.mamba2 import Mamba2Spec

__all__ = ["Mamba2"]


class Mamba2(Attention):
    """Runtime of `mamba2`: computes chunks of tokens in training and for prompts, single tokens in decoding."""

    def __init__(self, spec: Mamba2Spec, context: BuildContext) -> None:
        super().__init__()
        assert spec.n_heads is not None
        assert spec.norm_groups is not None
        self.n_heads, self.d_head, self.n_groups, self.d_state = spec.n_heads, spec.d_head, spec.n_groups, spec.d_state
        self.width, self.step_limits = spec.conv_width, (spec.step_min, spec.step_max)
        self.norm_order, self.norm_groups, self.eps = spec.norm, spec.norm_groups, spec.eps
        self.scales = spec.projection_scales
        d_values, d_keys = spec.n_heads * spec.d_head, spec.n_groups * spec.d_state
        self.split = [d_values, d_keys, d_keys]
        d_conv = sum(self.split)
        self.input = context.linear(context.d_model, d_values + d_conv + spec.n_heads, bias=spec.bias)
        """Rows: the gate, then all heads' values, the groups' keys, the groups' queries, the heads' step sizes."""
        self.conv = nn.Conv1d(d_conv, d_conv, spec.conv_width, groups=d_conv, bias=spec.conv_bias)
        self.activation = spec.activation.build(context)
        per_head = self.conv.weight.new_zeros(spec.n_heads)
        self.decay_log = nn.Parameter(per_head.clone())
        self.step_bias = nn.Parameter(per_head.clone())
        self.skip = nn.Parameter(per_head.clone())
        self.norm_weight = nn.Parameter(self.conv.weight.new_ones(d_values)) if spec.norm != "none" else None
        self.output = context.linear(d_values, context.d_model, bias=spec.bias)

    def initial(self) -> dict[str, Initial]:
        initial: dict[str, Initial] = {
            "output.weight": "output",
            "conv.weight": lambda shape, generator: draw(shape, generator, -(shape[-1] ** -0.5), shape[-1] ** -0.5),
            "decay_log": lambda shape, generator: draw(shape, generator, 1, 16).log(),
            "step_bias": draw_step_bias,
            "skip": "ones",
        }
        if self.conv.bias is not None:
            initial["conv.bias"] = "zeros"
        if self.norm_weight is not None:
            initial["norm_weight"] = "ones"
        return initial

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        return {
            "input.weight": consecutive(("gate", "value", "key", "query"), [self.split[0], *self.split]),
            "output.weight": {"output": (slice(None),)},
        }

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        state = cast("RecurrentState | None", forward.state(self))
        tail, memory_BHPN = (None, None) if state is None or state.tensors is None else state.tensors
        z_BTX, u_BTF, step_BTH = self.input(x_BTE).split([self.split[0], sum(self.split), self.n_heads], dim=-1)
        if forward.valid_BT is not None:
            u_BTF = u_BTF.masked_fill(~forward.valid_BT[..., None], 0)
        documents = None if forward.documents_BT is None else forward.positions
        conv_weight = self.conv.weight
        if self.scales is not None:
            # The factors of convolved features are those of their weights; `u_BTF`, which the state keeps, has none.
            z_BTX, step_BTH = z_BTX * self.scales[0], step_BTH * self.scales[4]
            sizes = zip(self.split, self.scales[1:4], strict=True)
            conv_weight = conv_weight * torch.cat([conv_weight.new_full((size, 1, 1), scale) for size, scale in sizes])
        mixed_BTF = causal_conv(u_BTF, conv_weight, tail, documents)
        if self.conv.bias is not None:
            mixed_BTF = mixed_BTF + self.conv.bias
        mixed_BTF = self.activation(mixed_BTF)
        if forward.valid_BT is not None:
            # The bias is added to padding too. Without it, padding adds zeros to an empty state, which stays empty.
            mixed_BTF = mixed_BTF.masked_fill(~forward.valid_BT[..., None], 0)

        wide = torch.promote_types(x_BTE.dtype, torch.float32)
        v, k, q = mixed_BTF.to(wide).split(self.split, dim=-1)
        v_BTHP = torch.unflatten(v, -1, (self.n_heads, self.d_head))
        k_BTGN, q_BTGN = (torch.unflatten(x, -1, (self.n_groups, self.d_state)) for x in (k, q))
        step_BTH = F.softplus(step_BTH.to(wide) + self.step_bias.to(wide))
        if self.step_limits != (0, None):
            step_BTH = step_BTH.clamp(*self.step_limits)
        g_BTH = -self.decay_log.to(wide).exp() * step_BTH
        written_BTHP = v_BTHP * step_BTH[..., None]

        if memory_BHPN is None:
            memory_BHPN = v_BTHP.new_zeros(n_batch, self.n_heads, self.d_head, self.d_state)
        if not varies(n_tokens) and n_tokens == 1:
            steps = (x[:, 0] for x in (q_BTGN, k_BTGN, written_BTHP, g_BTH))
            out_BHP, memory_BHPN = state_space_step(*steps, memory_BHPN)  # type: ignore[call-arg]
            out_BTHP = out_BHP[:, None]
        else:
            segments = None if documents is None else (documents == 0).cumsum(dim=1)
            out_BTHP, memory_BHPN = state_space_scan(q_BTGN, k_BTGN, written_BTHP, g_BTH, memory_BHPN, segments_BT=segments)
        if state is not None:
            state.update(n_tokens, conv_tail(u_BTF, self.width, tail), memory_BHPN)
        out_BTX = (out_BTHP + self.skip.to(wide)[:, None] * v_BTHP).flatten(2)
        return self.output(self._gated(out_BTX, F.silu(z_BTX.to(wide))).to(x_BTE.dtype))  # type: ignore[no-any-return]

    def _gated(self, out_BTX: Tensor, gate_BTX: Tensor) -> Tensor:
        """Multiply by the gate and normalize, in the order of the spec."""
        if self.norm_weight is None:
            return out_BTX * gate_BTX
        if self.norm_order == "after":
            return self._normalized(out_BTX * gate_BTX)
        return self._normalized(out_BTX) * gate_BTX

    def _normalized(self, x_BTX: Tensor) -> Tensor:
        assert self.norm_weight is not None
        normalized = rms_norm(torch.unflatten(x_BTX, -1, (self.norm_groups, -1)), None, self.eps)
        return normalized.flatten(2) * self.norm_weight.to(x_BTX.dtype)

    def new_state(self, allocation: Allocation) -> RecurrentState:
        wide = torch.promote_types(allocation.dtype, torch.float32)
        return allocation.recurrent(
            ((self.width - 1, sum(self.split)), allocation.dtype),
            ((self.n_heads, self.d_head, self.d_state), wide),
        )
