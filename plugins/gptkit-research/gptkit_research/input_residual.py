"""Block `input-residual`.

Shapes: B batch, T tokens, E model width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial

__all__ = ["InputResidual", "InputResidualSpec"]


class InputResidualSpec(BlockSpec):
    """Pre-norm block that mixes its input with the first block's input, by two learned scalars.

    Formula:
        x ← a · x + b · x_0, with x_0 the input of the first such block
        x ← x + dropout(attention(norm(x)))
        x ← x + dropout(feedforward(norm(x)))

    Shapes:
        (B, T, d_model) → (B, T, d_model); a and b are one number each

    Paper:
        https://github.com/KellerJordan/modded-nanogpt

    Notes:
        The first block publishes its input (`Forward.publish`) under the key `("input-residual",)`; there a and b have the
        same factor, and only their sum matters.
    """

    name: Literal["input-residual"] = "input-residual"
    own: float = Field(1.0, description="Initial factor a of the block's own input.")
    first: float = Field(0.0, description="Initial factor b of the first block's input.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of each branch's output that is dropped in training.")
    examples = ({}, {"own": 0.9, "first": 0.2})

    @property
    def wiring(self) -> tuple[Step, ...]:
        mixed = Step((("learned mixture with the first input",),), shortcut=False)
        return (mixed, Step((("norm", "attention"),)), Step((("norm", "feedforward"),)))

    def build(self, context: BuildContext) -> Block:
        return InputResidual(self, context)


class InputResidual(Block):
    """The runtime part of `InputResidualSpec`."""

    def __init__(self, spec: InputResidualSpec, context: BuildContext) -> None:
        super().__init__()
        parts = context.parts
        self.key = ("input-residual",)
        # Layers are built in order; the first one publishes its input.
        self.is_first = context.share(self.key, lambda: parts.index) == parts.index
        self.publishes = (self.key,) if self.is_first else ()
        self.reads = () if self.is_first else (self.key,)
        self.factors = [spec.own, spec.first]
        self.mix = nn.Parameter(torch.tensor(self.factors))
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.attention = parts.attention.build(context)
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout > 0 else nn.Identity()

    def initial(self) -> dict[str, Initial]:
        return {"mix": lambda shape, generator: torch.tensor(self.factors)}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        if self.is_first:
            forward.publish(self, self.key, x_BTE)
        # Later blocks may run on the last tokens only.
        first_BTE: Tensor = x_BTE if self.is_first else forward.read(self, self.key)[:, -x_BTE.shape[1] :]
        own, first = self.mix.to(x_BTE.dtype)
        x_BTE = own * x_BTE + first * first_BTE
        x_BTE = x_BTE + self.dropout(self.attention(self.attention_norm(x_BTE), forward))
        y_BTE: Tensor = x_BTE + self.dropout(self.feedforward(self.feedforward_norm(x_BTE), forward))
        return y_BTE
