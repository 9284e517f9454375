"""`differential` attention: the difference of two softmax maps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec, head_problems
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.differential import DifferentialAttention

__all__ = ["DifferentialSpec"]


class DifferentialSpec(AttentionSpec):
    """Differential attention: the difference of two softmax maps, which cancels attention noise common to both.

    Formula:
        head = (softmax(q₁ k₁ᵀ / √d_head + mask) − λ softmax(q₂ k₂ᵀ / √d_head + mask)) v
        λ = exp(λ_q1 · λ_k1) − exp(λ_q2 · λ_k2) + λ_init,  λ_init = 0.8 − 0.6 exp(−0.3 layer), layers from 0
        y = W_o [(1 − λ_init) norm(head_1) … (1 − λ_init) norm(head_H)]

    Shapes:
        (B, T, d_model) -> (B, T, d_model); a head has 2 queries, 2 keys of d_head and a value of 2 · d_head features;
        cache: 4 · n_kv_heads · d_head values per token

    Paper:
        https://arxiv.org/abs/2410.05258

    Notes:
        λ and its four vectors are shared by the heads of a layer. A head is as wide as two heads of other attentions. With
        n_kv_heads, several heads share keys and values, as in DiffLlama. Attention weights, if requested, are the first maps
        of the heads that share keys, then their second maps.
    """

    formula: ClassVar[str] = r"""
        A_i = \operatorname{softmax}\left(\frac{q_i k_i^\top}{\sqrt{d}}\right)
        \text{head} = (A_1 - \lambda A_2) v
        y = W_o \left[(1 - \lambda_{\text{init}}) \operatorname{norm}(\text{head}_1) \dots\right]
    """

    name: Literal["differential"] = "differential"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width", "bias", "content_bias"})

    n_heads: int | None = Field(None, ge=1, description="Number of heads; by default the number with a head size of 64.")
    n_kv_heads: int | None = Field(
        None, ge=1, description="Heads of keys and values, a divisor of n_heads; n_heads by default."
    )
    d_head: int | None = Field(
        None, ge=1, description="Features of a query and of a key, half of a value's; d_model / (2 · n_heads) by default."
    )
    qkv_bias: bool = Field(False, description="Add a bias to the query, key and value projections.")
    output_bias: bool = Field(False, description="Add a bias to the output projection.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight in training.")
    window: int | None = Field(
        None, ge=1, description="Sliding window: a token attends to this many tokens, itself included; all by default."
    )
    norm: NormSpec = component("rms", description="Norm of each head's output.")
    lambda_init: float | None = Field(None, ge=0, lt=1, description="λ_init; by default it depends on the layer's index.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"n_heads": 2, "d_head": 6},
        {"n_heads": 4, "n_kv_heads": 2, "d_head": 4, "window": 9, "norm": "layer", "lambda_init": 0.3},
        {"n_heads": 2, "d_head": 4, "qkv_bias": True, "output_bias": True, "dropout": 0.1},
    )

    def head_shape(self) -> HeadShape:
        """Return the heads that positions apply to: two for each head."""
        assert self.n_heads is not None
        assert self.n_kv_heads is not None
        assert self.d_head is not None
        return HeadShape(2 * self.n_heads, 2 * self.n_kv_heads, self.d_head)

    def score_features(self, context: BuildContext) -> ScoreFeatures | None:
        return ScoreFeatures.of(context.parts.position, dropout=self.dropout > 0)

    def resolved(self, context: BuildContext) -> Any:
        n_heads = self.n_heads or max(1, context.d_model // (2 * (self.d_head or 64)))
        d_head = self.d_head or max(1, context.d_model // (2 * n_heads))
        return self.replace(n_heads=n_heads, n_kv_heads=self.n_kv_heads or n_heads, d_head=d_head)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        heads = self.head_shape()
        if heads.n_heads % heads.n_kv_heads:
            yield Problem(
                ("n_kv_heads",),
                f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}; choose one of its divisors",
            )
        if context.d_model % heads.n_heads and self.d_head == context.d_model // heads.n_heads:
            yield Problem(
                ("n_heads",),
                f"d_model {context.d_model} cannot be split into {self.n_heads} heads of 2 parts each; choose another "
                "number, or set d_head",
            )
        else:  # of a size that is not rounded
            yield from head_problems(context, heads)

    def build(self, context: BuildContext) -> DifferentialAttention:
        from gptkit.components.attention.modules.differential import DifferentialAttention

        return DifferentialAttention(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.differential import differential

        return differential(self, context)

    def start(self, layer: int) -> float:
        """Return λ_init of the layer with this index."""
        return 0.8 - 0.6 * math.exp(-0.3 * layer) if self.lambda_init is None else self.lambda_init
