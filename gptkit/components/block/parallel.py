"""Block with parallel attention and feed-forward."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["ParallelSpec"]


class ParallelSpec(BlockSpec):
    """Apply attention and feed-forward to the same input and add both to the residual (GPT-J, GPT-NeoX, Falcon, Cohere).

    Formula:
        x ← x + residual_scale · (dropout(attention(norm₁(x))) + dropout(feedforward(norm₂(x))))
        With `norms: 1` both branches read norm₁(x).

    Shapes:
        (B, T, d_model) → (B, T, d_model)

    Paper:
        https://arxiv.org/abs/2204.02311
    """

    formula: ClassVar[str] = r"""
        n = \operatorname{norm}(x)
        x \leftarrow x + \operatorname{attention}(n) + \operatorname{feedforward}(n)
    """

    name: Literal["parallel"] = "parallel"
    norms: Literal[1, 2] = Field(1, description="One norm for both branches (GPT-J, Cohere), or one each (GPT-NeoX).")
    dropout: float = Field(0.0, description="Share of each branch's output that is dropped in training.", ge=0, lt=1)
    residual_scale: float = Field(1.0, description="Factor of each branch before it is added (Granite: 0.22).")

    @property
    def wiring(self) -> tuple[Step, ...]:
        if self.norms == 1:
            return (Step((("attention",), ("feedforward",)), before=("norm",), factor="residual_scale"),)
        return (Step((("norm", "attention"), ("norm", "feedforward")), factor="residual_scale"),)

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.parallel import Parallel

        return Parallel(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.forms import parallel

        return parallel(self, context)
