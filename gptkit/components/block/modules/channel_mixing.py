"""Runtime module of block `channel-mixing`.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.state import Stateful
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.parameters import ParameterOptions
from gptkit.nn.token_shift import shifted, without_padding
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.block.channel_mixing import ChannelMixingSpec

__all__ = ["ChannelMixing"]


class ChannelMixing(Block, Stateful):
    """Runtime part of `ChannelMixingSpec`. Its decoding state is the normalized vector of the last token."""

    def __init__(self, spec: ChannelMixingSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.d_model, self.dropout = context.d_model, spec.dropout
        # The blocks of a head are initialized as the last layer is.
        self.depth = min(parts.index, context.n_layers - 1) / context.n_layers
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.attention = parts.attention.build(context)
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model)
        self.mix = nn.Parameter(torch.zeros(2, context.d_model))
        """Shares of the current token. Rows: those of the feed-forward's input, of the gate's."""
        self.receptance = context.linear(context.d_model, context.d_model, bias=False)
        self.feedforward = parts.feedforward.build(context)

    def initial(self) -> dict[str, Initial]:
        return {"mix": self._initial_mix}

    def parameter_options(self) -> dict[str, ParameterOptions]:
        # A table of factors, not a matrix that vectors are multiplied with.
        return {"mix": ParameterOptions(decay=False, hidden=False)}

    def _initial_mix(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        share: Tensor = (torch.arange(shape[1]) / shape[1]) ** (1 - self.depth)
        return share.expand(shape).clone()

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        x_BTE = x_BTE + dropout(self.attention(self.attention_norm(x_BTE), forward), self.dropout, self.training)
        u_BTE = without_padding(self.feedforward_norm(x_BTE), forward)
        state = cast("RecurrentState | None", forward.state(self))
        last_B1E = None if state is None or state.tensors is None else state.tensors[0]
        previous_BTE = shifted(u_BTE, last_B1E, forward)
        for_k, for_r = (torch.lerp(previous_BTE, u_BTE, mix_E) for mix_E in self.mix.to(u_BTE.dtype))
        if state is not None:
            state.update(u_BTE.shape[1], u_BTE[:, -1:].clone())
        fed_BTE = self.receptance(for_r).sigmoid() * self.feedforward(for_k, forward)
        return x_BTE + dropout(fed_BTE, self.dropout, self.training)

    def new_state(self, allocation: Allocation) -> RecurrentState:
        return allocation.recurrent(((1, self.d_model), allocation.dtype))
