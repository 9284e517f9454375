"""Block with norms of the branches' outputs only."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["OutputNormSpec"]


class OutputNormSpec(BlockSpec):
    """Normalize the output of each branch before the residual is added, but not its input (OLMo 2 and 3).

    Formula:
        x ← x + residual_scale · dropout(norm(attention(x)))
        x ← x + residual_scale · dropout(norm(feedforward(x)))

    Shapes:
        (B, T, d_model) → (B, T, d_model)

    Paper:
        https://arxiv.org/abs/2501.00656
    """

    formula: ClassVar[str] = r"""
        x \leftarrow x + \operatorname{norm}(\operatorname{attention}(x))
        x \leftarrow x + \operatorname{norm}(\operatorname{feedforward}(x))
    """

    name: Literal["output-norm"] = "output-norm"
    dropout: float = Field(0.0, description="Share of each branch's output that is dropped in training.", ge=0, lt=1)
    residual_scale: float = Field(1.0, description="Factor of each branch before it is added (Granite: 0.22).")

    @property
    def wiring(self) -> tuple[Step, ...]:
        return tuple(Step(((part, "norm"),), factor="residual_scale") for part in ("attention", "feedforward"))

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.output_norm import OutputNorm

        return OutputNorm(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.forms import output_norm

        return output_norm(self, context)
