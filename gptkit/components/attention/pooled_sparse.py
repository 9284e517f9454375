"""`pooled-sparse` attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.attention.block_sparse import index_problems
from gptkit.components.attention.grouped_query import GroupedQuerySpec
from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.pooled_sparse import PooledSparseAttention

__all__ = ["PooledSparseSpec"]


class PooledSparseSpec(GroupedQuerySpec):
    """Grouped-query attention to blocks of keys that a small indexer chooses by the mean of each (Qwen 4 Exp, its QSA).

    Formula:
        [i_1 … i_J, k] = W_i x for each token;  i_j(t) ← rotate(norm(i_j(t))) at position t
        m_b = rotate(norm(mean of k over the `block_size` tokens of block b)) at the position of the first of them
        score(t, b) = Σ_j relu(i_j(t) · m_b) / √d_index, of the blocks that t sees as a whole
        A query t attends to the keys of the `top_blocks` blocks with the highest scores (of equal ones, the first), and to
        those s ≤ t that are in no such block, as in `grouped-query`; all heads have the same choice.
        In training: loss += index_loss · mean KL(p ‖ softmax(score over the chosen blocks)) / n_layers, p the attention
        weights of these blocks, their mean over heads divided by its sum; the indexer has no other gradient, and its loss
        changes nothing else.
    Shapes:
        (B, T, d_model) -> (B, T, d_model); W_i ((index_heads + 1) · d_index, d_model)
        cache: 2 · n_kv_heads · d_head values per token, d_index per block, and a block of tokens
    Paper:
        https://arxiv.org/abs/2502.13189
    Notes:
        The paper, mixture of block attention, chooses blocks by the mean of the attention's own keys, for each head. In
        Qwen 4 Exp, the indexer has a projection and norms of its own. A query sees the blocks that end with it or before,
        and begin within its window. Positions count from the first token of a row or
        document, and so do the blocks. This implementation computes scores for all keys and excludes those not chosen: it
        defines the model exactly, and does not save time. The loss computes the attention weights once more;
        `index_loss: 0` omits it.
    """

    formula: ClassVar[str] = r"""
        m_b = \operatorname{rotate}\left(\operatorname{norm}\left(\frac{1}{n} \sum_{s \in b} W_{ik} x_s\right)\right)
        I_{t,b} = \frac{1}{\sqrt{d}} \sum_j \operatorname{relu}(i_{t,j} \cdot m_b)
        \text{chosen}(t) = \operatorname{topk}_{b < \lfloor (t + 1) / n \rfloor}(I_{t,b}) \cup \text{the last block}
    """

    name: Literal["pooled-sparse"] = "pooled-sparse"  # type: ignore[assignment]
    # Without a rotation, blocks of equal tokens have equal scores, and rounding would choose among them.
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate"})

    block_size: int = Field(16, ge=1, description="Tokens of a block of keys.")
    top_blocks: int = Field(64, ge=1, description="Number of full blocks that a query attends to.")
    index_heads: int = Field(16, ge=1, description="Number of the indexer's queries of a token.")
    d_index: int | None = Field(
        None,
        ge=1,
        description="Features of the indexer's queries and keys, rotated as the first ones of a head; d_head by default.",
    )
    index_norm: NormSpec = component("rms", description="Norm of the indexer's queries and of the means of its keys.")
    index_loss: float = Field(1.0, ge=0, description="Weight of the indexer's loss in training.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"n_heads": 4, "n_kv_heads": 2, "d_head": 8, "block_size": 2, "top_blocks": 7, "qk_norm": "rms"}
        | {"index_heads": 8, "output_gate": True},
        {"n_heads": 4, "n_kv_heads": 1, "d_head": 8, "block_size": 4, "top_blocks": 3, "index_heads": 9, "d_index": 10}
        | {"index_loss": 0.1},
    )

    @property
    def depends_on_position(self) -> bool:
        return True  # blocks count from the first token

    def resolved(self, context: BuildContext) -> Any:
        heads = super().resolved(context)
        return heads.replace(d_index=self.d_index or heads.d_head)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        yield from super().problems(context)
        position: Any = context.parts.position
        d_head = self.head_shape().d_head
        assert self.d_index is not None
        if self.d_index < d_head and "rotate" in position.uses:
            d_rotary = position.d_rotary(d_head) if hasattr(position, "d_rotary") else d_head
            if self.d_index < d_rotary:
                what = f"the {d_rotary} features that position {position.name!r} rotates"
                yield Problem(("d_index",), f"should be at least {what}; raise it")
        if position.depends_on_length:
            yield Problem(
                (), f"position {position.name!r} depends on the length of the text, and means of blocks are kept as they are"
            )
        yield from index_problems(self)

    def score_features(self, context: BuildContext) -> ScoreFeatures:
        return replace(super().score_features(context), added_term=True)

    def build(self, context: BuildContext) -> PooledSparseAttention:
        from gptkit.components.attention.modules.pooled_sparse import PooledSparseAttention

        return PooledSparseAttention(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.pooled_sparse import pooled_sparse

        return pooled_sparse(self, context)
