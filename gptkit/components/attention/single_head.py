"""`single-head` attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec, head_problems
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.single_head import SingleHeadAttention

__all__ = ["SingleHeadSpec"]


class SingleHeadSpec(AttentionSpec):
    """Scaled dot-product attention with one head: three trainable matrices W_query, W_key and W_value.

    Formula:
        q = x W_query, k = x W_key, v = x W_value
        y = softmax(q kᵀ / √d_k + mask) v,  then W_output back to d_model if the widths differ
    Shapes:
        (B, T, d_model) -> (B, T, d_model); the head has d_head features
    Paper:
        https://arxiv.org/abs/1706.03762
    """

    formula: ClassVar[str] = r"""
        q = x W_{\text{query}} \qquad k = x W_{\text{key}} \qquad v = x W_{\text{value}}
        y = \operatorname{softmax}\left(\frac{q k^\top}{\sqrt{d}} + \text{mask}\right) v
    """

    name: Literal["single-head"] = "single-head"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width", "bias", "content_bias", "value_bias"})

    d_head: int | None = Field(
        None, ge=1, description="Width that W_query, W_key and W_value project into; d_model by default."
    )
    qkv_bias: bool = Field(False, description="Add a bias to the three projections.")
    output: bool | None = Field(
        None,
        description="Project the result with W_output; by default only if d_head differs from d_model, which requires it.",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight in training.")
    window: int | None = Field(None, ge=1, description="Sliding window in tokens, the current one included; all by default.")
    scale: float | None = Field(None, gt=0, description="Factor of the dot products; 1/√d_head by default.")

    def resolved(self, context: BuildContext) -> Any:
        d_head = self.d_head or context.d_model
        output = d_head != context.d_model if self.output is None else self.output
        return self.replace(d_head=d_head, output=output)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        assert self.d_head is not None
        if self.d_head != context.d_model and not self.output:
            yield Problem(
                ("output",),
                f"the head of {self.d_head} features must be projected back to d_model {context.d_model}; set output: true",
            )
        yield from head_problems(context, HeadShape(1, 1, self.d_head))

    def score_features(self, context: BuildContext) -> ScoreFeatures:
        return ScoreFeatures.of(context.parts.position, dropout=self.dropout > 0)

    def build(self, context: BuildContext) -> SingleHeadAttention:
        from gptkit.components.attention.modules.single_head import SingleHeadAttention

        return SingleHeadAttention(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.single import single_head

        return single_head(self, context)
