"""Runtime of `mamba1`.

Shapes: B batch, T tokens, E model width, X features of the values, H heads of P of these features each, R features of the
step sizes, N features of keys and queries, I inputs, O outputs.
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
from gptkit.nn.parameters import ParameterOptions
from gptkit.ops.causal_conv import causal_conv, conv_tail
from gptkit.ops.selective_scan import selective_scan

if TYPE_CHECKING:
    from gptkit.components.attention.mamba1 import Mamba1Spec

__all__ = ["HeadLinear", "Mamba1"]


class HeadLinear(nn.Module):
    """Linear projections of heads, each with a matrix of its own: (B, T, H, I) to (B, T, H, O)."""

    def __init__(self, n_heads: int, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_heads, d_out, d_in))

    def initial(self) -> dict[str, Initial]:
        return {"weight": "weight"}

    def parameter_options(self) -> dict[str, ParameterOptions]:
        return {"weight": ParameterOptions(hidden=True)}

    def forward(self, x_BTHI: Tensor) -> Tensor:
        return torch.einsum("bthi,hoi->btho", x_BTHI, self.weight)

    def extra_repr(self) -> str:
        n_heads, d_out, d_in = self.weight.shape
        return f"{n_heads} × {d_in} → {d_out}"


class Mamba1(Attention):
    """Runtime of `mamba1`: computes chunks of tokens, or single ones in decoding."""

    def __init__(self, spec: Mamba1Spec, context: BuildContext) -> None:
        super().__init__()
        assert spec.d_inner is not None
        assert spec.step_rank is not None
        self.d_inner, self.d_state, self.width = spec.d_inner, spec.d_state, spec.conv_width
        self.n_heads = spec.n_heads
        self.split = [spec.step_rank, spec.d_state, spec.d_state]
        self.input = context.linear(context.d_model, 2 * spec.d_inner, bias=spec.bias)
        """Rows: the values, then the gate."""
        self.conv = nn.Conv1d(spec.d_inner, spec.d_inner, spec.conv_width, groups=spec.d_inner, bias=spec.conv_bias)
        self.activation = spec.activation.build(context)
        self.select = self._projection(context, spec.d_inner // spec.n_heads, sum(self.split))
        """Rows: the features of the step sizes, then the key, then the query."""
        self.step_norm, self.key_norm, self.query_norm = (spec.norm.build(context, dim=dim) for dim in self.split)
        self.step = self._projection(context, spec.step_rank, spec.d_inner // spec.n_heads)
        self.step_bias = nn.Parameter(self.conv.weight.new_zeros(spec.d_inner))
        self.decay_log = nn.Parameter(self.conv.weight.new_zeros(spec.d_inner, spec.d_state))
        self.skip = nn.Parameter(self.conv.weight.new_ones(spec.d_inner))
        self.output = context.linear(spec.d_inner, context.d_model, bias=spec.bias)

    def _projection(self, context: BuildContext, d_in: int, d_out: int) -> nn.Module:
        """Return a projection of each head's features; that of a single head is one of the layer's kind."""
        return context.linear(d_in, d_out, bias=False) if self.n_heads == 1 else HeadLinear(self.n_heads, d_in, d_out)

    def initial(self) -> dict[str, Initial]:
        initial: dict[str, Initial] = {
            "output.weight": "output",
            "conv.weight": lambda shape, generator: draw(shape, generator, -(shape[-1] ** -0.5), shape[-1] ** -0.5),
            "step.weight": lambda shape, generator: draw(shape, generator, -(shape[-1] ** -0.5), shape[-1] ** -0.5),
            "step_bias": draw_step_bias,
            "decay_log": _count,
            "skip": "ones",
        }
        if self.conv.bias is not None:
            initial["conv.bias"] = "zeros"
        return initial

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        return {
            "input.weight": consecutive(("value", "gate"), [self.d_inner, self.d_inner]),
            "output.weight": {"output": (slice(None),)},
        }

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        state = cast("RecurrentState | None", forward.state(self))
        tail, memory_BXN = (None, None) if state is None or state.tensors is None else state.tensors
        u_BTX, z_BTX = self.input(x_BTE).chunk(2, dim=-1)
        padding_BT1 = None if forward.valid_BT is None else ~forward.valid_BT[..., None]
        if padding_BT1 is not None:
            u_BTX = u_BTX.masked_fill(padding_BT1, 0)
        documents = None if forward.documents_BT is None else forward.positions
        v_BTX = causal_conv(u_BTX, self.conv.weight, tail, documents)
        if self.conv.bias is not None:
            v_BTX = v_BTX + self.conv.bias
        v_BTX = self.activation(v_BTX)
        if padding_BT1 is not None:
            # The bias is added to padding too. Without it, padding adds zeros to an empty state, which stays empty.
            v_BTX = v_BTX.masked_fill(padding_BT1, 0)

        wide = torch.promote_types(x_BTE.dtype, torch.float32)
        v_BTHP = self._heads(v_BTX)
        r_BTHR, k_BTHN, q_BTHN = self.select(v_BTHP).split(self.split, dim=-1)
        k_BTHN, q_BTHN = self.key_norm(k_BTHN).to(wide), self.query_norm(q_BTHN).to(wide)
        step_BTHP = F.softplus(self.step(self.step_norm(r_BTHR)).to(wide) + self._heads(self.step_bias.to(wide)))
        v_BTHP, rates_HPN = v_BTHP.to(wide), torch.unflatten(-self.decay_log.to(wide).exp(), 0, (self.n_heads, -1))
        if memory_BXN is None:
            memory_BXN = v_BTHP.new_zeros(n_batch, self.d_inner, self.d_state)
        memory_BHPN = torch.unflatten(memory_BXN, 1, (self.n_heads, -1))
        resets = None if documents is None else documents == 0
        y_BTHP, memory_BHPN = selective_scan(v_BTHP, step_BTHP, rates_HPN, k_BTHN, q_BTHN, memory_BHPN, resets_BT=resets)
        if state is not None:
            state.update(n_tokens, conv_tail(u_BTX, self.width, tail), memory_BHPN.flatten(1, 2))
        y_BTX = (y_BTHP + self._heads(self.skip.to(wide)) * v_BTHP).flatten(2) * F.silu(z_BTX.to(wide))
        return self.output(y_BTX.to(x_BTE.dtype))  # type: ignore[no-any-return]

    def _heads(self, x_X: Tensor) -> Tensor:
        """Split the last dimension into heads, (…, X) to (…, H, P)."""
        return torch.unflatten(x_X, -1, (self.n_heads, -1))

    def new_state(self, allocation: Allocation) -> RecurrentState:
        wide = torch.promote_types(allocation.dtype, torch.float32)
        return allocation.recurrent(((self.width - 1, self.d_inner), allocation.dtype), ((self.d_inner, self.d_state), wide))


def _count(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return the logarithms of 1, 2, … in every row."""
    return torch.arange(1, shape[-1] + 1, dtype=torch.float32).log().expand(shape).clone()
