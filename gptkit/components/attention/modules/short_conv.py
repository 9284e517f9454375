"""Runtime of `short-conv`.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.attention.base import Attention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial, consecutive
from gptkit.ops.causal_conv import causal_conv, conv_tail

if TYPE_CHECKING:
    from gptkit.components.attention.short_conv import ShortConvSpec

__all__ = ["ShortConv"]


class ShortConv(Attention):
    """Runtime of `short-conv`. Its state is the last inputs of the convolution."""

    def __init__(self, spec: ShortConvSpec, context: BuildContext) -> None:
        super().__init__()
        self.width = spec.width
        self.d_model = d_model = context.d_model
        self.input = context.linear(d_model, 3 * d_model, bias=spec.bias)
        """Rows: the gate before the convolution, the gate after it, its input."""
        self.conv = nn.Conv1d(d_model, d_model, spec.width, groups=d_model, bias=spec.bias)
        self.output = context.linear(d_model, d_model, bias=spec.bias)

    def initial(self) -> dict[str, Initial]:
        initial: dict[str, Initial] = {"output.weight": "output", "conv.weight": _uniform}
        return {**initial, "conv.bias": "zeros"} if self.conv.bias is not None else initial

    def projections(self) -> dict[str, dict[str, tuple[slice, ...]]]:
        d_model = self.d_model
        return {
            "input.weight": consecutive(("gate", "gate", "value"), [d_model, d_model, d_model]),
            "output.weight": {"output": (slice(None),)},
        }

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        state = cast("RecurrentState | None", forward.state(self))
        tail = None if state is None or state.tensors is None else state.tensors[0]
        before_BTE, after_BTE, value_BTE = self.input(x_BTE).chunk(3, dim=-1)
        u_BTE = before_BTE * value_BTE
        if forward.valid_BT is not None:
            # Padding adds zeros to an empty state, which therefore stays empty.
            u_BTE = u_BTE.masked_fill(~forward.valid_BT[..., None], 0)
        documents = None if forward.documents_BT is None else forward.positions
        mixed_BTE = causal_conv(u_BTE, self.conv.weight, tail, documents)
        if self.conv.bias is not None:
            mixed_BTE = mixed_BTE + self.conv.bias
        if state is not None:
            state.update(x_BTE.shape[1], conv_tail(u_BTE, self.width, tail))
        return self.output(after_BTE * mixed_BTE)  # type: ignore[no-any-return]

    def new_state(self, allocation: Allocation) -> RecurrentState:
        return allocation.recurrent(((self.width - 1, self.d_model), allocation.dtype))


def _uniform(shape: torch.Size, generator: torch.Generator) -> Tensor:
    bound = shape[-1] ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
