"""`expert-heads`: attention whose query and output projections are experts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec, head_problems
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.kinds.router import RouterSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.expert_heads import ExpertHeadsAttention

__all__ = ["ExpertHeadsSpec"]


class ExpertHeadsSpec(AttentionSpec):
    """Mixture of attention heads (MoA): a router selects groups of heads for every token; all share keys and values.

    Formula:
        [k v] = W_kv x, n_kv_heads heads;  q_e = W_query,e x for each chosen expert e, n_kv_heads heads
        head_e,j = softmax(q_e,j k_jᵀ / √d_head + mask) v_j
        y = Σ weight_e · W_output,e [head_e,1 … head_e,J] + b over the experts e that the router chose for x

    Shapes:
        (B, T, d_model) -> (B, T, d_model); a token has k · n_kv_heads heads; cache: 2 · n_kv_heads · d_head values per token

    Paper:
        https://arxiv.org/abs/2210.05144

    Notes:
        The projections of the experts are stacked, as those of feed-forward experts, and do not depend on the model's
        `linear`. Attention weights, if requested, are those of the chosen experts for each key/value head in turn.
    """

    formula: ClassVar[str] = r"""
        \text{head}_{e,j} = \operatorname{softmax}\left(\frac{q_{e,j} k_j^\top}{\sqrt{d}} + \text{mask}\right) v_j
        y = \sum_{e \in \text{chosen}(x)} w_e(x)\, W_{o,e} [\text{head}_{e,1} \dots \text{head}_{e,J}] + b
    """

    name: Literal["expert-heads"] = "expert-heads"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate", "rotated_width", "bias", "content_bias"})

    n_experts: int = Field(8, ge=1, description="Number of experts to choose from.")
    router: RouterSpec = component(
        "top-k-softmax", description="Router: chooses the experts of each token, as many for each, and their weights."
    )
    n_kv_heads: int | None = Field(
        None, ge=1, description="Heads of keys and values, and of an expert; by default the number with a head size of 64."
    )
    d_head: int | None = Field(None, ge=1, description="Features of a head; d_model / n_kv_heads by default.")
    output_bias: bool = Field(False, description="Add a bias to the sum of the experts' outputs (JetMoE).")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight in training.")
    window: int | None = Field(
        None, ge=1, description="Sliding window: a token attends to this many tokens, itself included; all by default."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"n_experts": 4, "n_kv_heads": 2, "d_head": 8},
        {
            "n_experts": 3,
            "router": {"name": "softmax-top-k", "k": 1, "balance_loss": 0.01},
            "n_kv_heads": 3,
            "d_head": 4,
            "output_bias": True,
            "window": 9,
        },
    )

    @property
    def n_chosen(self) -> int:
        """Number of experts of a token; 0 for a router that does not declare it."""
        return getattr(self.router, "k", 0)

    def head_shape(self) -> HeadShape:
        """Return the heads that positions apply to: those of a token's experts."""
        assert self.n_kv_heads is not None
        assert self.d_head is not None
        return HeadShape(max(1, self.n_chosen) * self.n_kv_heads, self.n_kv_heads, self.d_head)

    def score_features(self, context: BuildContext) -> ScoreFeatures | None:
        return ScoreFeatures.of(context.parts.position, dropout=self.dropout > 0)

    def resolved(self, context: BuildContext) -> Any:
        n_kv_heads = self.n_kv_heads or max(1, context.d_model // (self.d_head or 64))
        return self.replace(n_kv_heads=n_kv_heads, d_head=self.d_head or max(1, context.d_model // n_kv_heads))

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        for problem in self.router.expert_problems(self.n_experts):
            yield problem.below("router")
        if not self.n_chosen:
            yield Problem(
                ("router",), f"router {self.router.name!r} does not declare its number of experts k; choose top-k-softmax"
            )
        yield from head_problems(context, self.head_shape())

    def build(self, context: BuildContext) -> ExpertHeadsAttention:
        from gptkit.components.attention.modules.expert_heads import ExpertHeadsAttention

        return ExpertHeadsAttention(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.expert_heads import expert_heads

        return expert_heads(self, context)
