"""`convolutional` attention: queries and keys of few heads, which convolutions mix over tokens and features."""

from __future__ import annotations

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
    from gptkit.components.attention.modules.convolutional import ConvolutionalAttention

__all__ = ["ConvolutionalSpec"]


class ConvolutionalSpec(AttentionSpec):
    """Compressed convolutional attention (CCA): attention in few heads, whose queries and keys are convolved over tokens.

    Formula:
        [q k] = W_qk x;  [q' k'] = conv_head(conv_feature([q k])), each causal, over a few tokens
        q̄_h = (q_h + k_g) / 2,  k̄_g the mean of q̄_h over the heads of g;  g = h // (n_heads / n_kv_heads)
        q ← norm(q' + q̄),  k ← τ_g norm(k' + k̄)
        v = [W_v x_t; W_u x_{t−1}], whose halves are features of all heads together
        head_h = softmax(q_h k_gᵀ / √d_head + mask) v_g,  y = W_o [head_1 … head_H]

    Shapes:
        (B, T, d_model) → (B, T, d_model); cache: 2 · n_kv_heads · d_head values per token, and for each row d_model and
        (feature_width + head_width − 2) · (n_heads + n_kv_heads) · d_head values

    Paper:
        https://arxiv.org/abs/2510.04476

    Notes:
        The heads together may be narrower than the model (ZAYA1: half), which saves projections, cache and the products of
        attention alike. `conv_feature` mixes each feature with its values at earlier tokens, `conv_head` all features of a
        head; both have biases. With two key/value heads, the values of the first are of the current token, and those of the
        second of the previous one. Before the first token of a text, x and [q k] are zeros.
    """

    formula: ClassVar[str] = r"""
        [q'\ k'] = \operatorname{conv}([q\ k]) \qquad v = [W_v x_t\ W_u x_{t-1}]
        \bar q_h = \tfrac{1}{2}(q_h + k_g) \qquad \bar k_g = \operatorname{mean}_h \bar q_h
        q \leftarrow \operatorname{norm}(q' + \bar q) \qquad k \leftarrow \tau \operatorname{norm}(k' + \bar k)
    """

    name: Literal["convolutional"] = "convolutional"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width", "bias", "content_bias", "value_bias"})

    n_heads: int | None = Field(
        None, ge=1, description="Number of query heads; by default, the number that gives half of d_model."
    )
    n_kv_heads: int | None = Field(
        None, ge=1, description="Number of key/value heads, a divisor of n_heads; by default n_heads / 4."
    )
    d_head: int = Field(64, ge=1, description="Features of a head.")
    feature_width: int = Field(2, ge=1, description="Width in tokens of the convolution of each feature.")
    head_width: int = Field(2, ge=1, description="Width in tokens of the convolution of each head's features.")
    norm: NormSpec = component(
        {"name": "rms", "scale": False, "eps": 1e-12}, description="Norm of queries and keys, of each head."
    )
    qkv_bias: bool = Field(False, description="Add a bias to the query, key and value projections.")
    output_bias: bool = Field(False, description="Add a bias to the output projection.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight in training.")
    sliding_window: int | None = Field(
        None,
        ge=1,
        description="Tokens whose keys and values a token attends to, itself included; all by default. Keys and values "
        "contain a few earlier tokens.",
    )
    scale: float | None = Field(None, gt=0, description="Factor of the dot products; 1/√d_head by default.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"n_heads": 4, "n_kv_heads": 2, "d_head": 8},
        {
            "n_heads": 3,
            "n_kv_heads": 1,
            "d_head": 12,
            "feature_width": 3,
            "head_width": 1,
            "norm": "layer",
            "qkv_bias": True,
            "output_bias": True,
            "sliding_window": 6,
            "scale": 0.5,
        },
        {"n_heads": 2, "n_kv_heads": 2, "d_head": 8, "feature_width": 1, "head_width": 4, "dropout": 0.1},
    )

    def resolved(self, context: BuildContext) -> Any:
        n_heads = self.n_heads or max(1, context.d_model // (2 * self.d_head))
        n_kv_heads = self.n_kv_heads
        if n_kv_heads is None:
            n_kv_heads = next(n for n in range(max(1, n_heads // 4), 0, -1) if n_heads % n == 0)
        return self.replace(n_heads=n_heads, n_kv_heads=n_kv_heads)

    @property
    def window(self) -> int | None:
        """The window of the mask. Not a field of this name, since more tokens than these affect the output."""
        return self.sliding_window

    def head_shape(self) -> HeadShape:
        """Return the heads of the resolved spec."""
        assert self.n_heads is not None
        assert self.n_kv_heads is not None
        return HeadShape(self.n_heads, self.n_kv_heads, self.d_head)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        heads = self.head_shape()
        if heads.n_heads % heads.n_kv_heads:
            yield Problem(
                ("n_kv_heads",),
                f"n_heads {heads.n_heads} is not a multiple of n_kv_heads {heads.n_kv_heads}; choose one of its divisors",
            )
        if heads.n_kv_heads * heads.d_head % 2:
            yield Problem(
                ("d_head",),
                f"half of the {heads.n_kv_heads * heads.d_head} features of the values are those of the previous token; "
                "choose an even d_head, or an even number of key/value heads",
            )
        yield from head_problems(context, heads)

    def score_features(self, context: BuildContext) -> ScoreFeatures:
        return ScoreFeatures.of(context.parts.position, dropout=self.dropout > 0)

    def build(self, context: BuildContext) -> ConvolutionalAttention:
        from gptkit.components.attention.modules.convolutional import ConvolutionalAttention

        return ConvolutionalAttention(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.convolutional import convolutional

        return convolutional(self, context)
