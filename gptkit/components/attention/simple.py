"""`simple` attention, without trainable weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec, head_problems
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.simple import SimpleAttention

__all__ = ["SimpleSpec"]


class SimpleSpec(AttentionSpec):
    """Attention without trainable weights: inputs are averaged with the softmax of their dot products.

    Formula:
        y = softmax(x xᵀ + mask) x
    Shapes:
        (B, T, d_model) -> (B, T, d_model)
    Notes:
        The first step of chapter 3 of "Build a Large Language Model (From Scratch)", with the causal mask.
    """

    formula: ClassVar[str] = r"y = \operatorname{softmax}(x x^\top + \text{mask})\, x"

    name: Literal["simple"] = "simple"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width", "bias"})

    scaled: bool = Field(False, description="Divide the dot products by √d_model, as trainable attention does.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight in training.")
    window: int | None = Field(None, ge=1, description="Sliding window in tokens, the current one included; all by default.")

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        yield from head_problems(context, HeadShape(1, 1, context.d_model))

    def score_features(self, context: BuildContext) -> ScoreFeatures:
        return ScoreFeatures.of(context.parts.position, dropout=self.dropout > 0)

    def build(self, context: BuildContext) -> SimpleAttention:
        from gptkit.components.attention.modules.simple import SimpleAttention

        return SimpleAttention(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.single import simple

        return simple(self, context)
