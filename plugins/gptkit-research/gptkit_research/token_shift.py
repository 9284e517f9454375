"""Block `token-shift`.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written
from gptkit.nn.block import Block
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.recurrent import RecurrentState
from gptkit.nn.cache.state import Stateful
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.token_shift import shifted, without_padding

__all__ = ["TokenShift", "TokenShiftSpec", "depth"]


class TokenShiftSpec(BlockSpec):
    """Pre-norm block whose feed-forward reads each token mixed with the previous one (channel mixing of RWKV-7).

    Formula:
        x ← x + dropout(attention(norm(x)))
        u = norm(x);  x_t ← x_t + dropout(feedforward(u_t + μ ⊙ (u_{t−1} − u_t))), with u = 0 before the first token

    Shapes:
        (B, T, d_model) → (B, T, d_model); μ has d_model numbers; cache: the last u, d_model values per row

    Paper:
        https://arxiv.org/abs/2503.14456

    Notes:
        μ is initially 1 − (i / d_model)^((1 − l / n_layers)⁴) for feature i and layer l, so that early layers and first
        features mix more. With μ = 0 the block equals `pre-norm`.
    """

    name: Literal["token-shift"] = "token-shift"
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of each branch's output that is dropped in training.")

    @property
    def wiring(self) -> tuple[Step, ...]:
        return (Step((("norm", "attention"),)), Step((("norm", "mixture with the previous token", "feedforward"),)))

    def build(self, context: BuildContext) -> Block:
        return TokenShift(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit_research.written.rwkv7 import token_shift

        return token_shift(self, context)


class TokenShift(Block, Stateful):
    """The runtime part of `TokenShiftSpec`. Its decoding state is the normalized vector of the last token."""

    def __init__(self, spec: TokenShiftSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.d_model, self.index, self.n_layers = context.d_model, parts.index, context.n_layers
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.attention = parts.attention.build(context)
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        self.mix = nn.Parameter(torch.zeros(context.d_model))
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout > 0 else nn.Identity()

    def initial(self) -> dict[str, Initial]:
        return {"mix": self._initial_mix}

    def _initial_mix(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        fractions = torch.arange(shape[0]) / shape[0]
        return 1 - fractions ** ((1 - depth(self.index, self.n_layers)) ** 4)

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        x_BTE = x_BTE + self.dropout(self.attention(self.attention_norm(x_BTE), forward))
        u_BTE = without_padding(self.feedforward_norm(x_BTE), forward)
        state = cast("RecurrentState | None", forward.state(self))
        last_B1E = None if state is None or state.tensors is None else state.tensors[0]
        mixed_BTE = torch.addcmul(u_BTE, shifted(u_BTE, last_B1E, forward) - u_BTE, self.mix.to(u_BTE.dtype))
        if state is not None:
            state.update(u_BTE.shape[1], u_BTE[:, -1:].clone())
        y_BTE: Tensor = x_BTE + self.dropout(self.feedforward(mixed_BTE, forward))
        return y_BTE

    def new_state(self, allocation: Allocation) -> RecurrentState:
        return allocation.recurrent(((1, self.d_model), allocation.dtype))


def depth(index: int, n_layers: int) -> float:
    """Return the share of the layers that precede one, from 0 to below 1; that of the last for the blocks of a head."""
    return min(index, n_layers - 1) / n_layers
