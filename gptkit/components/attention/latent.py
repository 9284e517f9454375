"""`latent` attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component, optional_component
from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec, head_problems
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.latent import LatentAttention

__all__ = ["LatentSpec"]


class LatentSpec(AttentionSpec):
    """Multi-head latent attention (MLA): keys and values of all heads are projections of one small cached vector.

    Formula:
        c = norm(W_down x),  [k_h v_h] = W_up,h c,  r = rotate(W_r x), shared by the heads
        q = W_q x, or W_q,up norm(W_q,down x) where q_rank is given; each q_h = [n_h, rotate(p_h)]
        y = W_o [softmax((n_h · k_h + p_h · r) · scale + mask) v_h for all h]
        With `head_gate`, each head's output is multiplied by the number σ(W_g x)_h; with `output_gate`, by the vector.
        With `query_latents: both`, q = W_q,up [norm(z), z] with z = W_q,down x; with `gate_input: queries`, the output gate
        is projected from what the queries are projected from, by further rows of each head in W_q,up.
        With `sinks`, the softmax of each head has one more term, a learned logit without a value.
        With `scale_latents`, each latent is multiplied by √(d_model / its width).
        With `rotary_norm`, r = rotate(norm(W_r x)).
    Shapes:
        (B, T, d_model) -> (B, T, d_model); cache: kv_rank + d_rotary values per token
    Paper:
        https://arxiv.org/abs/2405.04434
    """

    formula: ClassVar[str] = r"""
        c = \operatorname{norm}(W_{\text{down}} x) \qquad [k_h\ v_h] = W_{\text{up},h}\, c
        r = \operatorname{rotate}(W_r x) \qquad q_h = [n_h\ \operatorname{rotate}(p_h)]
        a_h = \operatorname{softmax}\left(s (n_h k_h^\top + p_h r^\top) + \text{mask}\right)
        y = W_o [a_1 v_1 \dots a_H v_H]
    """

    name: Literal["latent"] = "latent"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width", "bias"})
    only_with: ClassVar[Mapping[str, str]] = {"query_latents": "q_rank", "gate_input": "output_gate"}

    n_heads: int | None = Field(
        None, ge=1, description="Number of heads; by default, the number that gives a head size of 64."
    )
    kv_rank: int | None = Field(
        None, ge=1, description="Width of the latent that keys and values are projected from; d_model / 4 by default."
    )
    q_rank: int | None = Field(
        None,
        ge=1,
        description="Width of the latent that queries are projected from; by default, they are projected directly.",
    )
    d_nope: int = Field(64, ge=1, description="Features of a query and key without position.")
    d_rotary: int = Field(32, ge=2, description="Features of a query and key that are rotated by the position.")
    d_value: int = Field(64, ge=1, description="Features of a value.")
    norm: NormSpec = component("rms", description="Norm of the latents.")
    bias: bool = Field(False, description="Add a bias to the down-projections and to the output projection.")
    scale: float | None = Field(None, gt=0, description="Factor of the dot products; 1/√(d_nope + d_rotary) by default.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight in training.")
    window: int | None = Field(None, ge=1, description="Sliding window in tokens, the current one included; all by default.")
    head_gate: bool = Field(
        False, description="Multiply each head's output by a sigmoid of a projection of the input, one number (Ling 3)."
    )
    output_gate: bool = Field(
        False,
        description="Multiply each feature of the heads' outputs by a sigmoid gate computed from the input (Hunyuan 4).",
    )
    gate_input: Literal["layer", "queries"] = Field(
        "layer",
        description="What the output gate is projected from: the layer's input, or what the queries are (A.X K2).",
    )
    query_latents: Literal["normed", "both"] = Field(
        "normed",
        description="What queries are projected from: their latent after its norm, or those after and before it (A.X K2).",
    )
    sinks: bool = Field(False, description="Add a learned logit per head to the softmax, without a value (attention sinks).")
    scale_latents: bool = Field(
        False, description="Multiply each latent, after its norm, by √(d_model / its width) (dots3 Note)."
    )
    rotary_norm: NormSpec | None = optional_component(
        description="Norm of the key that is rotated, which the heads share (dots3 Note)."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"q_rank": 10, "window": 9, "head_gate": True, "scale_latents": True, "rotary_norm": "rms"},
        {"n_heads": 2, "q_rank": 7, "d_value": 5, "query_latents": "both", "output_gate": True, "gate_input": "queries"},
    )

    @property
    def d_gate(self) -> int:
        """Features of each head in the queries' up-projection that are those of its output gate."""
        return self.d_value if self.output_gate and self.gate_input == "queries" else 0

    @property
    def reads_both(self) -> bool:
        """Whether queries are projected from the latents after and before their norm."""
        return self.query_latents == "both" and self.q_rank is not None

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(
            n_heads=self.n_heads or max(1, context.d_model // 64), kv_rank=self.kv_rank or max(1, context.d_model // 4)
        )

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        assert self.n_heads is not None
        yield from head_problems(context, HeadShape(self.n_heads, 1, self.d_rotary))

    def score_features(self, context: BuildContext) -> ScoreFeatures:
        return ScoreFeatures.of(context.parts.position, sinks=self.sinks, dropout=self.dropout > 0)

    def build(self, context: BuildContext) -> LatentAttention:
        from gptkit.components.attention.modules.latent import LatentAttention

        return LatentAttention(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.latent import latent

        return latent(self, context)
