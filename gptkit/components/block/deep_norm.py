"""Block of DeepNet: post-norm with a scaled residual, for very deep models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["DeepNormSpec"]


class DeepNormSpec(BlockSpec):
    """Post-norm with the residual scaled by α, and values, outputs and feed-forwards initialized β times smaller.

    Formula:
        x ← norm(alpha · x + residual_scale · dropout(attention(x)))
        x ← norm(feedforward_alpha · x + feedforward_residual_scale · dropout(feedforward(x)))
        Initial weights of value, output and feed-forward projections: beta times what the initializer draws.

    Shapes:
        (B, T, d_model) → (B, T, d_model)

    Paper:
        https://arxiv.org/abs/2203.00555

    Notes:
        The paper's initialization is `initializer: {name: xavier, scale_outputs: false}`. An attention declares its value
        and output projections; an attention without this declaration keeps its own initialization. The last block ends with
        a norm, so a model of such blocks has no separate final norm.
    """

    formula: ClassVar[str] = r"""
        x \leftarrow \operatorname{norm}(\alpha x + \operatorname{attention}(x))
        x \leftarrow \operatorname{norm}(\alpha x + \operatorname{feedforward}(x))
    """

    name: Literal["deep-norm"] = "deep-norm"
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"alpha": 1.5, "residual_scale": 0.5, "feedforward_alpha": 0.75, "feedforward_residual_scale": 2.0},
    )

    alpha: float | None = Field(None, gt=0, description="Factor of the shortcut; (2 · n_layers)^(1/4) by default.")
    beta: float | None = Field(None, gt=0, description="Factor of initial weights; (8 · n_layers)^(−1/4) by default.")
    dropout: float = Field(0.0, description="Share of each branch's output that is dropped in training.", ge=0, lt=1)
    residual_scale: float = Field(1.0, description="Factor of each branch before it is added.")
    feedforward_alpha: float | None = Field(
        None, gt=0, description="Factor of the shortcut of the feed-forward; alpha by default (MiniMax-01 has its own)."
    )
    feedforward_residual_scale: float | None = Field(
        None, description="Factor of the feed-forward before it is added; residual_scale by default."
    )

    @property
    def final_norm(self) -> bool:
        return False

    @property
    def wiring(self) -> tuple[Step, ...]:
        return (
            Step((("attention",),), after=True, factor="residual_scale", shortcut_factor="alpha"),
            Step((("feedforward",),), after=True, factor="feedforward_residual_scale", shortcut_factor="feedforward_alpha"),
        )

    def resolved(self, context: BuildContext) -> Any:
        alpha = (2 * context.n_layers) ** 0.25 if self.alpha is None else self.alpha
        beta = (8 * context.n_layers) ** -0.25 if self.beta is None else self.beta
        own = {
            "feedforward_alpha": alpha if self.feedforward_alpha is None else self.feedforward_alpha,
            "feedforward_residual_scale": self.residual_scale
            if self.feedforward_residual_scale is None
            else self.feedforward_residual_scale,
        }
        return self.replace(alpha=alpha, beta=beta, **own)

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.deep_norm import DeepNorm

        return DeepNorm(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.forms import deep_norm

        return deep_norm(self, context)
