"""`stacked-heads` attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec, head_problems
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.stacked_heads import StackedHeads

__all__ = ["StackedHeadsSpec"]


class StackedHeadsSpec(AttentionSpec):
    """Several single heads side by side, each with matrices of its own; their outputs are concatenated.

    Formula:
        head_h = softmax(q_h k_hᵀ / √d_head + mask) v_h,  q_h = x W_query,h, k_h = x W_key,h, v_h = x W_value,h
        y = [head_1 … head_H]
    Shapes:
        (B, T, d_model) -> (B, T, d_model); n_heads · d_head = d_model
    Notes:
        The first form of multi-head attention in chapter 3 of "Build a Large Language Model (From Scratch)". `multi-head`
        computes the same with one matrix for all heads, followed by an output projection.
    """

    formula: ClassVar[str] = r"""
        \text{head}_h = \operatorname{softmax}\left(\frac{q_h k_h^\top}{\sqrt{d}} + \text{mask}\right) v_h
        y = [\text{head}_1 \dots \text{head}_H]
    """

    name: Literal["stacked-heads"] = "stacked-heads"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width", "bias", "content_bias", "value_bias"})

    n_heads: int | None = Field(
        None,
        ge=1,
        description="Number of heads, of d_model / n_heads features each; by default, the number that gives 64.",
    )
    qkv_bias: bool = Field(False, description="Add a bias to the three projections of each head.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight in training.")
    window: int | None = Field(None, ge=1, description="Sliding window in tokens, the current one included; all by default.")
    scale: float | None = Field(None, gt=0, description="Factor of the dot products; 1/√d_head by default.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({"n_heads": 2},)

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(n_heads=self.n_heads or max(1, context.d_model // 64))

    def heads(self, context: BuildContext) -> HeadShape:
        """Return the shape of the heads."""
        assert self.n_heads is not None
        return HeadShape(self.n_heads, self.n_heads, max(1, context.d_model // self.n_heads))

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        assert self.n_heads is not None
        if context.d_model % self.n_heads:
            yield Problem(
                ("n_heads",), f"d_model {context.d_model} cannot be split into {self.n_heads} heads; choose a divisor"
            )
            return
        yield from head_problems(context, self.heads(context))

    def score_features(self, context: BuildContext) -> ScoreFeatures:
        return ScoreFeatures.of(context.parts.position, dropout=self.dropout > 0)

    def build(self, context: BuildContext) -> StackedHeads:
        from gptkit.components.attention.modules.stacked_heads import StackedHeads

        return StackedHeads(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.single import stacked_heads

        return stacked_heads(self, context)
