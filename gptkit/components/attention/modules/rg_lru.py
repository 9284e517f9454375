"""Runtime of `rg-lru`.

Shapes: B batch, T tokens, E model width, X features of the state, H blocks of P features each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.components.attention.modules.recurrence import draw
from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.base import Attention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial, consecutive
from gptkit.ops.causal_conv import causal_conv, conv_tail
from gptkit.ops.linear_recurrence import linear_recurrence

if TYPE_CHECKING:
    from gptkit.components.attention.rg_lru import RgLruSpec

__all__ = ["RgLru"]

_RATE = 8.0
"""c: the largest decay is that of `decay` to this power."""


class RgLru(Attention):
    """Runtime of `rg-lru`: computes chunks of tokens, or single ones in decoding."""

    def __init__(self, spec: RgLruSpec, context: BuildContext) -> None:
        super().__init__()
        assert spec.d_inner is not None
        self.d_inner, self.n_heads, self.width = spec.d_inner, spec.n_heads, spec.conv_width
        self.input = context.linear(context.d_model, 2 * spec.d_inner, bias=spec.bias)
        """Rows: the values, then the output gate."""
        self.conv = nn.Conv1d(spec.d_inner, spec.d_inner, spec.conv_width, groups=spec.d_inner)
        block = spec.d_inner // spec.n_heads
        weight, bias = (self.conv.weight.new_zeros(spec.n_heads, *shape) for shape in ((block, block), (block,)))
        self.decay_gate_weight = nn.Parameter(weight.clone())
        self.decay_gate_bias = nn.Parameter(bias.clone())
        self.input_gate_weight = nn.Parameter(weight.clone())
        self.input_gate_bias = nn.Parameter(bias.clone())
        self.decay = nn.Parameter(self.conv.weight.new_zeros(spec.d_inner))
        self.activation = spec.activation.build(context)
        self.output = context.linear(spec.d_inner, context.d_model, bias=spec.bias)

    def initial(self) -> dict[str, Initial]:
        return {
            "output.weight": "output",
            "conv.weight": lambda shape, generator: draw(shape, generator, -(shape[-1] ** -0.5), shape[-1] ** -0.5),
            "decay_gate_weight": "weight",
            "input_gate_weight": "weight",
            "decay": _draw_decay,
        }

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        return {
            "input.weight": consecutive(("value", "gate"), [self.d_inner, self.d_inner]),
            "output.weight": {"output": (slice(None),)},
        }

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        n_batch, n_tokens, _ = x_BTE.shape
        state = cast("RecurrentState | None", forward.state(self))
        tail, h_BX = (None, None) if state is None or state.tensors is None else state.tensors
        u_BTX, gate_BTX = self.input(x_BTE).chunk(2, dim=-1)
        padding_BT1 = None if forward.valid_BT is None else ~forward.valid_BT[..., None]
        if padding_BT1 is not None:
            u_BTX = u_BTX.masked_fill(padding_BT1, 0)
        documents = None if forward.documents_BT is None else forward.positions
        v_BTX = causal_conv(u_BTX, self.conv.weight, tail, documents) + cast("Tensor", self.conv.bias)
        if padding_BT1 is not None:
            # The bias is added to padding too. Without it, padding adds zeros to an empty state, which stays empty.
            v_BTX = v_BTX.masked_fill(padding_BT1, 0)

        wide = torch.promote_types(x_BTE.dtype, torch.float32)
        decay_gate_BTX, input_gate_BTX = (
            self._gate(v_BTX, weight, bias).to(wide)
            for weight, bias in (
                (self.decay_gate_weight, self.decay_gate_bias),
                (self.input_gate_weight, self.input_gate_bias),
            )
        )
        log_BTX = -_RATE * decay_gate_BTX * F.softplus(self.decay.to(wide))
        # The bound is below what matters; the derivative of the root is infinite at zero.
        factor_BTX = (-(2 * log_BTX).expm1()).clamp(min=1e-12).sqrt()
        first_BT1 = (forward.positions == 0)[..., None]
        written_BTX = factor_BTX.masked_fill(first_BT1, 1) * input_gate_BTX * v_BTX.to(wide)
        if h_BX is None:
            h_BX = written_BTX.new_zeros(n_batch, self.d_inner)
        states_BTX = linear_recurrence(log_BTX.exp().masked_fill(first_BT1, 0), written_BTX, h_BX)
        if state is not None:
            state.update(n_tokens, conv_tail(u_BTX, self.width, tail), states_BTX[:, -1].clone())
        return self.output(states_BTX.to(x_BTE.dtype) * self.activation(gate_BTX))  # type: ignore[no-any-return]

    def _gate(self, v_BTX: Tensor, weight_HPP: Tensor, bias_HP: Tensor) -> Tensor:
        """Return a gate of each feature, computed from the features of its block."""
        v_BTHP = torch.unflatten(v_BTX, -1, (self.n_heads, -1))
        return (torch.einsum("bthp,hpq->bthq", v_BTHP, weight_HPP) + bias_HP).sigmoid().flatten(2)

    def new_state(self, allocation: Allocation) -> RecurrentState:
        wide = torch.promote_types(allocation.dtype, torch.float32)
        return allocation.recurrent(((self.width - 1, self.d_inner), allocation.dtype), ((self.d_inner,), wide))


def _draw_decay(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw values with which a is between 0.9 and 0.999 where r = 1."""
    return (-draw(shape, generator, 0.9, 0.999).log() / _RATE).expm1().log()
