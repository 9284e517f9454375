"""Block of DeepNet: post-norm with a scaled residual, for very deep models."""

from __future__ import annotations

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
        x ← norm(alpha · x + dropout(attention(x)))
        x ← norm(alpha · x + dropout(feedforward(x)))
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
    alpha: float | None = Field(None, gt=0, description="Factor of the shortcut; (2 · n_layers)^(1/4) by default.")
    beta: float | None = Field(None, gt=0, description="Factor of initial weights; (8 · n_layers)^(−1/4) by default.")
    dropout: float = Field(0.0, description="Share of each branch's output that is dropped in training.", ge=0, lt=1)

    @property
    def final_norm(self) -> bool:
        return False

    @property
    def wiring(self) -> tuple[Step, ...]:
        return tuple(Step(((part,),), after=True, shortcut_factor="alpha") for part in ("attention", "feedforward"))

    def resolved(self, context: BuildContext) -> Any:
        alpha = (2 * context.n_layers) ** 0.25 if self.alpha is None else self.alpha
        beta = (8 * context.n_layers) ** -0.25 if self.beta is None else self.beta
        return self.replace(alpha=alpha, beta=beta)

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.deep_norm import DeepNorm

        return DeepNorm(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.forms import deep_norm

        return deep_norm(self, context)
