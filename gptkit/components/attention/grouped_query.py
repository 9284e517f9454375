"""`grouped-query` attention, and the fields that `multi-head` shares with it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import optional_component
from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec, head_problems
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext, LayerParts
from gptkit.kinds.norm import NormSpec, stacking_problem
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import WritingContext, Written
from gptkit.nn.attention.pattern import Chunks, MaskPattern

if TYPE_CHECKING:
    from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention

__all__ = ["GroupedQuerySpec", "HeadedSpec"]


class HeadedSpec(AttentionSpec):
    """Fields of multi-head attentions."""

    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width", "bias", "content_bias", "value_bias"})
    kv_source_field: ClassVar[str | None] = "reuse_kv"
    sets_output_width: ClassVar[bool] = True
    takes_addition: ClassVar[bool] = True
    only_with: ClassVar[Mapping[str, str]] = {
        "qk_norm_width": "qk_norm",
        "qk_norm_order": "qk_norm",
        "clip_order": "clip_qkv",
        "gate_bias": "output_gate",
        "relative_extent": "relative_width",
        "relative_norm": "relative_width",
        "kv_conv_form": "kv_conv",
        "k_norm": "qk_norm",
    }

    n_heads: int | None = Field(
        None, ge=1, description="Number of query heads; by default, the number that gives a head size of 64."
    )
    d_head: int | None = Field(None, ge=1, description="Features of a head; d_model / n_heads by default.")
    d_value: int | None = Field(None, ge=1, description="Features of a head's value; d_head by default.")
    value_scale: float = Field(1.0, description="Factor of the values (MiMo-V2-Flash: 0.707).")
    qkv_bias: bool = Field(False, description="Add a bias to the query, key and value projections.")
    output_bias: bool = Field(False, description="Add a bias to the output projection.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight in training.")
    window: int | None = Field(
        None, ge=1, description="Sliding window: a token attends to this many tokens, itself included; all by default."
    )
    chunk: int | None = Field(None, ge=1, description="Attend only within chunks of this many positions.")
    scale: float | None = Field(None, gt=0, description="Factor of the dot products; 1/√d_head by default.")
    qk_norm: NormSpec | None = optional_component(description="Norm of queries and keys, each with its own weights.")
    k_norm: NormSpec | None = optional_component(
        description="Norm of keys, if it is another one than that of queries (Inkling 2: one without weights)."
    )
    qk_norm_width: Literal["head", "each-head", "full"] = Field(
        "head",
        description="Normalize each head separately (`head`: all with the same weights), or all heads of a token together.",
    )
    qk_norm_order: Literal["before", "after"] = Field(
        "before", description="Normalize before or after the rotation by position."
    )
    v_norm: NormSpec | None = optional_component(description="Norm of the values of each head; none by default (Gemma 4).")
    tie_kv: bool = Field(
        False, description="Values are the projected keys, before the norm and rotation of these: one projection for both."
    )
    reuse_kv: bool = Field(
        False,
        description="Attend to the keys and values of the last earlier layer with the same position, window and key/value "
        "heads, in place of own ones; a layer without such an earlier one computes them (arXiv 2405.12981).",
    )
    softcap: float | None = Field(None, gt=0, description="Cap scores softly: softcap · tanh(score / softcap).")
    sinks: bool = Field(False, description="Add a learned logit per head to the softmax, without a value (attention sinks).")
    token_sinks: bool = Field(
        False,
        description="Add a logit per head to the softmax that is computed from the input of the query's token, to that of "
        "`sinks` if both are set (Inkling 2).",
    )
    clip_qkv: float | None = Field(None, gt=0, description="Clamp queries, keys and values to ± this after projection.")
    clip_order: Literal["before", "after"] = Field(
        "before", description="Clamp before the norms of queries, keys and values, or after them."
    )
    output_gate: bool = Field(False, description="Multiply each head's output by a sigmoid gate computed from the input.")
    gate_bias: bool = Field(
        False, description="Add a learned number of each head to the output gate, before the sigmoid (Beam)."
    )
    head_gate: Literal["sigmoid", "softplus"] | None = Field(
        None, description="Multiply each head's output by one number, computed from the input with this function (Laguna)."
    )
    kv_conv: int | None = Field(
        None,
        ge=1,
        description="Width in tokens of causal convolutions of each feature of keys and values, which are added to them "
        "after their projection (Canon-B layers, arXiv 2512.17351; Inkling: 4).",
    )
    kv_conv_form: Literal["plain", "scaled", "dynamic"] = Field(
        "plain",
        description="Keep that sum as it is, or divide it by the root of its number of terms, kv_conv + 1 (`scaled`); "
        "`dynamic`: the convolution's weights have a part for each token and head, computed from the input (Inkling 2).",
    )
    relative_width: int | None = Field(
        None,
        ge=1,
        description="Relative features of a head: a projection of the input, which mixes so many learned profiles over "
        "distances into a term of the scores, after a softcap (Inkling: 16). None by default.",
    )
    relative_extent: int | None = Field(
        None,
        ge=1,
        description="Distances with a relative term, counted from 0; by default, the window, or 1024 without one.",
    )
    relative_norm: NormSpec | None = optional_component(
        description="Norm of the relative features of each head, with weights of its own; none by default (Inkling 2)."
    )
    output_norm: NormSpec | None = optional_component(
        description="Norm over all heads' outputs, after gates and before the output projection (BitNet)."
    )

    @property
    @abstractmethod
    def kv_heads(self) -> int:
        """Number of key/value heads of the resolved spec."""

    @property
    def depends_on_position(self) -> bool:
        return self.chunk is not None

    @property
    def takes_kv_inputs(self) -> bool:
        return not self.reuse_kv and not self.tie_kv

    @property
    def mixed_tokens(self) -> int:
        return 0 if self.kv_conv is None else self.kv_conv - 1

    def kv_form(self, parts: LayerParts) -> Hashable:
        """Return the form of a layer's keys and values: what layers that share them have in common."""
        shapes = (self.kv_heads, self.d_head, self.d_value, self.window, self.mask_pattern())
        return (*shapes, self.kv_conv, self.kv_conv_form, parts.position)

    def kv_source(self, index: int, layers: Sequence[LayerParts]) -> int | None:
        own = next((layer for layer in layers if layer.index == index), None)
        if not self.reuse_kv or own is None:
            return None
        form = self.kv_form(own)
        for earlier in sorted((layer for layer in layers if layer.index < index), key=lambda layer: -layer.index):
            attention = earlier.attention
            if isinstance(attention, HeadedSpec) and attention.kv_form(earlier) == form:
                source = attention.kv_source(earlier.index, layers)
                return earlier.index if source is None else source
        return None

    def mask_pattern(self) -> MaskPattern | None:
        """The mask pattern that restricts attention in addition to `window`; a subclass may override it."""
        return None if self.chunk is None else Chunks(self.chunk)

    def resolved(self, context: BuildContext) -> Any:
        n_heads = self.n_heads or max(1, context.d_model // (self.d_head or 64))
        d_head = self.d_head or max(1, context.d_model // n_heads)
        extent = self.relative_extent
        if self.relative_width is not None and extent is None:
            extent = self.window or 1024
        d_value = None if self.d_value == d_head else self.d_value
        return self.replace(n_heads=n_heads, d_head=d_head, d_value=d_value, relative_extent=extent)

    def head_shape(self) -> HeadShape:
        assert self.n_heads is not None
        assert self.d_head is not None
        return HeadShape(self.n_heads, self.kv_heads, self.d_head)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        heads = self.head_shape()
        if heads.n_heads % heads.n_kv_heads:
            yield Problem(
                ("n_kv_heads",),
                f"n_heads {heads.n_heads} is not a multiple of n_kv_heads {heads.n_kv_heads}; choose one of its divisors",
            )
        divides = heads.d_head * heads.n_heads == context.d_model or self.d_head != context.d_model // heads.n_heads
        if not divides:
            yield Problem(
                ("n_heads",),
                f"d_model {context.d_model} cannot be split into {heads.n_heads} heads; choose a divisor, or set d_head",
            )
        if self.qk_norm is not None and self.qk_norm_width != "head" and self.qk_norm_order == "after":
            yield Problem(
                ("qk_norm_order",),
                f"a norm of width {self.qk_norm_width} is applied before the rotation; set qk_norm_order: before",
            )
        if self.qk_norm_width == "each-head":
            for norm in (self.qk_norm, self.k_norm):
                if norm is not None and (reason := stacking_problem(norm)) is not None:
                    yield Problem(("qk_norm_width",), f"{reason} over heads; set qk_norm_width: head")
        if self.relative_norm is not None and (reason := stacking_problem(self.relative_norm)) is not None:
            yield Problem(("relative_norm",), f"{reason} over heads; choose another")
        width = context.parts.position.rotated_width(heads.d_head)
        if self.qk_norm is not None and self.qk_norm_order == "after" and width != heads.d_head:
            yield Problem(
                ("qk_norm_order",),
                f"a norm after the rotation has {heads.d_head} weights, but position {context.parts.position.name!r} gives "
                f"{width} features; set qk_norm_order: before",
            )
        if self.d_value is not None and self.tie_kv:
            yield Problem(("d_value",), "values are the projected keys, of d_head features; remove d_value, or tie_kv")
        if self.d_value is not None and "value_bias" in context.parts.position.uses:
            yield Problem(
                ("d_value",),
                f"position {context.parts.position.name!r} adds {heads.d_head} features to each value; remove d_value",
            )
        if divides:  # else their size is a rounded one
            yield from head_problems(context, heads)

    def score_features(self, context: BuildContext) -> ScoreFeatures:
        return ScoreFeatures.of(
            context.parts.position,
            softcap=self.softcap is not None,
            sinks=self.sinks or self.token_sinks,
            added_term=self.relative_width is not None or self.token_sinks,
            dropout=self.dropout > 0,
            pattern=self.mask_pattern() is not None,
        )

    def build(self, context: BuildContext) -> GroupedQueryAttention:
        from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention

        return GroupedQueryAttention(self, context)


class GroupedQuerySpec(HeadedSpec):
    """Grouped-query attention (GQA): query heads share fewer key/value heads; multi-query attention (MQA) with one.

    Formula:
        head_h = softmax(q_h k_gᵀ / √d_head + mask) v_g,  g = h // (n_heads / n_kv_heads)
        y = W_o [head_1 … head_H]
    Shapes:
        (B, T, d_model) -> (B, T, d_model); cache: 2 · n_kv_heads · d_head values per token
    Paper:
        https://arxiv.org/abs/2305.13245
    Notes:
        Cross-layer attention (CLA, https://arxiv.org/abs/2405.12981): with `reuse_kv`, a layer computes queries only, and
        has no cache. Sharing by pairs is `layers: [{}, {attention: {reuse_kv: true}}]`; in Gemma 3n and 4 the last layers
        all read the last layer before them of their kind.
        With `kv_conv`, k_t and v_t are k_t + Σ_i w_i ⊙ k_{t−i} of the projected ones, likewise v, before clipping and norms;
        also with `tie_kv`, where k and v differ by their convolutions.
        With `relative_width` R and `relative_extent` L, score[h, t, s] += r_{t,h} · table[:, t − s] where t − s < L, with
        r = W_r x and table (R, L). `position: query-temperature` scales queries and r alike (Inkling).
        With `kv_conv_form: dynamic`, k_t becomes (k_t + Σ_i (w_i + a_{t,i}) ⊙ k_{t−i}) / √(2 · kv_conv + 1), likewise v,
        where a_t = W_a x_t has one number for all features of a head.
    """

    formula: ClassVar[str] = r"""
        \text{head}_h = \operatorname{softmax}\left(\frac{q_h k_g^\top}{\sqrt{d}} + \text{mask}\right) v_g
        g = \left\lfloor h \frac{n_{kv}}{n_h} \right\rfloor \qquad y = W_o [\text{head}_1 \dots \text{head}_H]
    """

    name: Literal["grouped-query"] = "grouped-query"
    n_kv_heads: int | None = Field(
        None, ge=1, description="Number of key/value heads, a divisor of n_heads; 1 is multi-query. By default n_heads / 4."
    )

    @property
    def kv_heads(self) -> int:
        assert self.n_kv_heads is not None
        return self.n_kv_heads

    def resolved(self, context: BuildContext) -> Any:
        heads = super().resolved(context)
        n_kv_heads = self.n_kv_heads
        if n_kv_heads is None:
            n_kv_heads = next(n for n in range(max(1, heads.n_heads // 4), 0, -1) if heads.n_heads % n == 0)
        return heads.replace(n_kv_heads=n_kv_heads)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.grouped_query import headed

        return headed(self, context, grouped=True)
