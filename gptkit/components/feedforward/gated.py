"""Gated feed-forwards: SwiGLU, GEGLU, ReGLU and their relatives, by activation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from gptkit.core.component import component
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial

__all__ = ["Gated", "GatedSpec"]


class GatedSpec(FeedForwardSpec):
    """Lets one projection of the input gate another: SwiGLU with `silu`, GEGLU with `gelu`, ReGLU with `relu`.

    Formula:
        y = W_down · (f(W_gate · x) ⊙ (W_up · x + up_offset)) + b_down
        With `clamp` c, the gate is cut off above c, and the other factor outside −c … c, before f and the product.

    Shapes:
        (B, T, d_model) → gate and up (B, T, 2·d_hidden), gate first → product (B, T, d_hidden) → (B, T, d_model)
        d_hidden = 8/3 · d_model, rounded up to a multiple of 64, unless given: as many weights as a plain one with X = 4

    Paper:
        https://arxiv.org/abs/2002.05202
    """

    name: Literal["gated"] = "gated"
    activation: ActivationSpec = component("silu", description="The gate's non-linearity.")
    expansion: float | None = Field(
        None, description="How much wider the hidden layer is than the model; 8/3 unless d_hidden is given.", gt=0
    )
    d_hidden: int | None = Field(
        None, description="Width of the hidden layer; expansion · d_model, rounded up, where left out.", ge=1
    )
    multiple_of: int = Field(64, description="What a computed d_hidden is rounded up to a multiple of.", ge=1)
    bias: bool = Field(False, description="Whether the projections have biases.")
    dropout: float = Field(0.0, description="Share of hidden features dropped in training.", ge=0, lt=1)
    clamp: float | None = Field(None, description="Bound on gate and up before the product (gpt-oss: 7).", gt=0)
    up_offset: float = Field(0.0, description="Added to the ungated factor (gpt-oss: 1).")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"activation": "gelu-tanh", "expansion": 2, "multiple_of": 8},
        {"activation": "quick-gelu", "clamp": 7.0, "up_offset": 1.0, "bias": True},
    )

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.expansion is not None and self.d_hidden is not None:
            raise ValueError("give either expansion or d_hidden, not both")
        return self

    def hidden(self, context: BuildContext) -> int:
        """The width of the hidden layer in these surroundings."""
        if self.d_hidden is not None:
            return self.d_hidden
        # In whole thirds, so that 8/3 of a width that three divides is exact.
        wanted = 8 * context.d_model / 3 if self.expansion is None else self.expansion * context.d_model
        return self.multiple_of * max(1, math.ceil(wanted / self.multiple_of))

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(activation=self.activation.resolved(context), expansion=None, d_hidden=self.hidden(context))

    def build(self, context: BuildContext) -> FeedForward:
        return Gated(self, context)


class Gated(FeedForward):
    """The runtime part of `GatedSpec`. The rows of `gate_up` are the gate's first, then the ungated factor's."""

    def __init__(self, spec: GatedSpec, context: BuildContext) -> None:
        super().__init__()
        d_hidden = spec.hidden(context)
        self.clamp = spec.clamp
        self.up_offset = spec.up_offset
        self.gate_up = nn.Linear(context.d_model, 2 * d_hidden, bias=spec.bias)
        self.activation = spec.activation.build(context)
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout > 0 else nn.Identity()
        self.down = nn.Linear(d_hidden, context.d_model, bias=spec.bias)

    def initial(self) -> dict[str, Initial]:
        return {"down.weight": "output"}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        gate_BTF, up_BTF = self.gate_up(x_BTE).chunk(2, dim=-1)
        if self.clamp is not None:
            gate_BTF = gate_BTF.clamp(max=self.clamp)
            up_BTF = up_BTF.clamp(-self.clamp, self.clamp)
        if self.up_offset:
            up_BTF = up_BTF + self.up_offset
        y_BTE: Tensor = self.down(self.dropout(self.activation(gate_BTF) * up_BTF))
        return y_BTE
