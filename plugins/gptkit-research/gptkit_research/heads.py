"""Common base of this package's attentions: fields, and the division of the width into heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field

from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec, head_problems
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape

__all__ = ["GroupedHeadsSpec", "HeadsSpec"]


class HeadsSpec(AttentionSpec):
    """Base class of attentions with several heads."""

    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width", "bias", "content_bias", "value_bias"})

    n_heads: int | None = Field(None, ge=1, description="Number of heads; by default the number with a head size of 64.")
    d_head: int | None = Field(
        None, ge=1, description="Features of a head's query; by default the width is divided among the heads."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight in training.")
    window: int | None = Field(
        None, ge=1, description="Sliding window: a token attends this many tokens, itself included; all by default."
    )

    @property
    def heads(self) -> HeadShape:
        """The heads of the resolved spec that the position applies to."""
        assert self.n_heads is not None
        assert self.d_head is not None
        return HeadShape(self.n_heads, self.n_heads, self.d_head)

    def score_features(self, context: BuildContext) -> ScoreFeatures | None:
        return ScoreFeatures.of(context.parts.position, dropout=self.dropout > 0)

    def resolved(self, context: BuildContext) -> Any:
        n_heads = self.n_heads or max(1, context.d_model // (self.d_head or 64))
        return self.replace(n_heads=n_heads, d_head=self.d_head or max(1, context.d_model // n_heads))

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        assert self.n_heads is not None
        assert self.d_head is not None
        if context.d_model % self.n_heads and self.d_head == context.d_model // self.n_heads:
            yield Problem(
                ("n_heads",),
                f"d_model {context.d_model} cannot be split into {self.n_heads} heads; choose another number, or set d_head",
            )
        yield from head_problems(context, self.heads)


class GroupedHeadsSpec(HeadsSpec):
    """Base class of attentions whose query heads may share key/value heads."""

    n_kv_heads: int | None = Field(None, ge=1, description="Key/value heads, a divisor of n_heads; n_heads by default.")

    @property
    def heads(self) -> HeadShape:
        shape = super().heads
        return HeadShape(shape.n_heads, self.n_kv_heads or shape.n_heads, shape.d_head)

    def resolved(self, context: BuildContext) -> Any:
        heads = super().resolved(context)
        return heads.replace(n_kv_heads=self.n_kv_heads or heads.n_heads)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        heads = self.heads
        if heads.n_heads % heads.n_kv_heads:
            yield Problem(
                ("n_kv_heads",),
                f"n_heads {heads.n_heads} is not a multiple of n_kv_heads {heads.n_kv_heads}; choose one of its divisors",
            )
        yield from super().problems(context)
