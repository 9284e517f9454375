"""The plain feed-forward: up-projection, activation, down-projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gptkit.core.component import component
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.feedforward import FeedForward
    from gptkit.nn.stacked import StackedFeedForward

__all__ = ["MLPSpec"]


class MLPSpec(FeedForwardSpec):
    """Multilayer perceptron: up-projection, activation, down-projection.

    Formula:
        y = W_down · f(W_up · x + b_up) + b_down

    Shapes:
        (B, T, d_model) → up (B, T, d_hidden) → down (B, T, d_model)
        d_hidden = X · d_model, X being the expansion

    Paper:
        https://arxiv.org/abs/1706.03762
    """

    formula: ClassVar[str] = r"y = W_{\text{down}} f(W_{\text{up}} x + b_{\text{up}}) + b_{\text{down}}"

    takes_addition: ClassVar[bool] = True
    name: Literal["mlp"] = "mlp"
    activation: ActivationSpec = component("gelu", description="Activation between the two projections.")
    expansion: float | None = Field(
        None, description="X, width of the hidden layer relative to d_model; 4 unless d_hidden is given.", gt=0
    )
    d_hidden: int | None = Field(None, description="Width of the hidden layer; X · d_model by default.", ge=1)
    bias: bool = Field(True, description="Whether the projections have biases.")
    dropout: float = Field(0.0, description="Share of hidden features dropped in training.", ge=0, lt=1)

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"activation": "relu-squared", "bias": False, "expansion": 2})

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.expansion is not None and self.d_hidden is not None:
            raise ValueError("give either expansion or d_hidden, not both")
        return self

    def hidden(self, context: BuildContext) -> int:
        """Return the width of the hidden layer for this build context."""
        expansion = 4 if self.expansion is None else self.expansion
        return self.d_hidden or max(1, round(expansion * context.d_model))

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(expansion=None, d_hidden=self.hidden(context))

    def build(self, context: BuildContext) -> FeedForward:
        from gptkit.components.feedforward.modules.mlp import MLP

        return MLP(self, context)

    def build_stacked(self, context: BuildContext, n_experts: int) -> StackedFeedForward | None:
        from gptkit.components.feedforward.modules.mlp import StackedMLP

        activation = self.activation.build(context)
        # Experts whose activation is learned have one each.
        if any(True for _ in activation.parameters()):
            return None
        return StackedMLP(self, context, activation, n_experts)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.feedforward.written.dense import mlp

        return mlp(self, context)

    def written_stacked(self, context: WritingContext, *, n_experts: int) -> Written:
        from gptkit.components.feedforward.written.dense import mlp_experts

        return mlp_experts(self, context, n_experts)
