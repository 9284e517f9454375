"""Block of the original transformer: transform, add, normalize."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.kinds.block import BlockSpec, Step
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["PostNormSpec"]


class PostNormSpec(BlockSpec):
    """Normalize the sum of each branch and its residual (original transformer, GPT-1, OPT-350m).

    Formula:
        x ← norm(x + residual_scale · dropout(attention(x)))
        x ← norm(x + residual_scale · dropout(feedforward(x)))

    Shapes:
        (B, T, d_model) → (B, T, d_model)

    Paper:
        https://arxiv.org/abs/1706.03762

    Notes:
        The last block ends with a norm, so a model of such blocks has no separate final norm.
    """

    formula: ClassVar[str] = r"""
        x \leftarrow \operatorname{norm}(x + \operatorname{attention}(x))
        x \leftarrow \operatorname{norm}(x + \operatorname{feedforward}(x))
    """

    name: Literal["post-norm"] = "post-norm"
    dropout: float = Field(0.0, description="Share of each branch's output that is dropped in training.", ge=0, lt=1)
    residual_scale: float = Field(1.0, description="Factor of each branch before it is added (Granite: 0.22).")

    @property
    def final_norm(self) -> bool:
        return False

    @property
    def wiring(self) -> tuple[Step, ...]:
        return tuple(Step(((part,),), after=True, factor="residual_scale") for part in ("attention", "feedforward"))

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.post_norm import PostNorm

        return PostNorm(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.forms import post_norm

        return post_norm(self, context)
