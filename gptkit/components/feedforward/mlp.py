"""The plain feed-forward: widen, bend, narrow."""

from __future__ import annotations

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

__all__ = ["MLP", "MLPSpec"]


class MLPSpec(FeedForwardSpec):
    """Two projections with an activation between them: up to a wider space, and back down.

    Formula:
        y = W_down · f(W_up · x + b_up) + b_down

    Shapes:
        (B, T, d_model) → up (B, T, d_hidden) → down (B, T, d_model)
        d_hidden = X · d_model, X being the expansion

    Paper:
        https://arxiv.org/abs/1706.03762
    """

    name: Literal["mlp"] = "mlp"
    activation: ActivationSpec = component("gelu", description="The non-linearity between the two projections.")
    expansion: float | None = Field(
        None, description="X, how much wider the hidden layer is than the model; 4 unless d_hidden is given.", gt=0
    )
    d_hidden: int | None = Field(None, description="Width of the hidden layer; X · d_model where left out.", ge=1)
    bias: bool = Field(True, description="Whether the projections have biases.")
    dropout: float = Field(0.0, description="Share of hidden features dropped in training.", ge=0, lt=1)

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"activation": "relu-squared", "bias": False, "expansion": 2})

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.expansion is not None and self.d_hidden is not None:
            raise ValueError("give either expansion or d_hidden, not both")
        return self

    def hidden(self, context: BuildContext) -> int:
        """The width of the hidden layer in these surroundings."""
        expansion = 4 if self.expansion is None else self.expansion
        return self.d_hidden or max(1, round(expansion * context.d_model))

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(activation=self.activation.resolved(context), expansion=None, d_hidden=self.hidden(context))

    def build(self, context: BuildContext) -> FeedForward:
        return MLP(self, context)


class MLP(FeedForward):
    """The runtime part of `MLPSpec`."""

    def __init__(self, spec: MLPSpec, context: BuildContext) -> None:
        super().__init__()
        d_hidden = spec.hidden(context)
        self.up = nn.Linear(context.d_model, d_hidden, bias=spec.bias)
        self.activation = spec.activation.build(context)
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout > 0 else nn.Identity()
        self.down = nn.Linear(d_hidden, context.d_model, bias=spec.bias)

    def initial(self) -> dict[str, Initial]:
        return {"down.weight": "output"}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        y_BTE: Tensor = self.down(self.dropout(self.activation(self.up(x_BTE))))
        return y_BTE
