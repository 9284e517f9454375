"""`block-sparse` attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.attention.grouped_query import GroupedQuerySpec
from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.kinds.attention_backend import ScoreFeatures
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.block_sparse import BlockSparseAttention

__all__ = ["BlockSparseSpec", "index_problems"]


class BlockSparseSpec(GroupedQuerySpec):
    """Grouped-query attention to the blocks of keys that a small indexer chooses for each query (MiniMax M3).

    Formula:
        i_j = rotate(norm(W_iq x)_j),  k = rotate(norm(W_ik x)), with j an index head, and blocks of `block_size` positions
        score_j(t, b) = max over keys s ≤ t of block b: i_t,j · k_s; infinite for the last `local_blocks` blocks up to t
        A query t of the heads of j attends to the keys s ≤ t of the `top_blocks` blocks with the highest score_j (of equal
        ones, the first), as in `grouped-query`; head h belongs to j = ⌊h · index_heads / n_heads⌋.
        In training: loss += index_loss · mean KL(p_j ‖ softmax(i_t,j · k_s / √d_index over the chosen keys)) / n_layers, p_j
        the mean of the attention weights of the heads of j; the indexer has no other gradient, and its loss changes
        nothing else.
    Shapes:
        (B, T, d_model) -> (B, T, d_model); cache: 2 · n_kv_heads · d_head + d_index values per token
    Paper:
        https://arxiv.org/abs/2502.11089
    Notes:
        Selection by blocks is that of native sparse attention, without its compressed branch and its window. Positions
        count from the first token of a row or document, and so do the blocks. Without a rotation, equal tokens have equal
        scores, so that rounding chooses between blocks with the same best token. This implementation computes scores for all
        keys and excludes those not chosen: it defines the model exactly, and does not save time. The loss computes the
        attention weights once more; `index_loss: 0` omits it.
    """

    formula: ClassVar[str] = r"""
        i_j = \operatorname{rotate}(\operatorname{norm}(W_{iq} x)_j)
        k = \operatorname{rotate}(\operatorname{norm}(W_{ik} x))
        I_{t,b} = \max_{s \in b,\ s \le t} i_{t,j} \cdot k_s
        \text{chosen}(t) = \text{local blocks} \cup \operatorname{topk}_b(I_{t,b})
    """

    name: Literal["block-sparse"] = "block-sparse"  # type: ignore[assignment]
    # Without a rotation, the indexer's keys of equal tokens are equal, and rounding would choose among them.
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate"})

    block_size: int = Field(128, ge=1, description="Positions of a block of keys.")
    top_blocks: int = Field(16, ge=1, description="Number of blocks that a query attends to, local ones included.")
    local_blocks: int = Field(
        1, ge=0, description="Number of the last blocks, up to that of the query, that are always chosen."
    )
    index_heads: int | None = Field(
        None,
        ge=1,
        description="Number of the indexer's heads, each of which chooses for as many heads; n_kv_heads by default.",
    )
    d_index: int | None = Field(
        None,
        ge=1,
        description="Features of the indexer's queries and keys; the first d_head are rotated. d_head by default.",
    )
    index_norm: NormSpec = component("rms", description="Norm of the indexer's queries and keys.")
    index_loss: float = Field(1.0, ge=0, description="Weight of the indexer's loss in training.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"n_heads": 4, "n_kv_heads": 2, "d_head": 8, "block_size": 4, "top_blocks": 10, "qk_norm": "rms"},
        {"n_heads": 4, "n_kv_heads": 1, "d_head": 8, "block_size": 2, "top_blocks": 7, "local_blocks": 0}
        | {"index_heads": 2, "d_index": 10, "index_loss": 0.1, "window": 9},
    )

    def resolved(self, context: BuildContext) -> Any:
        heads = super().resolved(context)
        return heads.replace(index_heads=self.index_heads or heads.n_kv_heads, d_index=self.d_index or heads.d_head)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        yield from super().problems(context)
        heads = self.head_shape()
        assert self.index_heads is not None
        assert self.d_index is not None
        if heads.n_heads % self.index_heads:
            yield Problem(("index_heads",), f"should be a divisor of n_heads, {heads.n_heads}; choose another number")
        if self.d_index < heads.d_head:
            yield Problem(("d_index",), f"should be at least d_head, {heads.d_head}; raise it, or lower d_head")
        if self.local_blocks > self.top_blocks:
            yield Problem(
                ("local_blocks",), f"should be at most top_blocks, {self.top_blocks}; lower it, or raise top_blocks"
            )
        yield from index_problems(self)

    def score_features(self, context: BuildContext) -> ScoreFeatures:
        return replace(super().score_features(context), added_term=True)

    def build(self, context: BuildContext) -> BlockSparseAttention:
        from gptkit.components.attention.modules.block_sparse import BlockSparseAttention

        return BlockSparseAttention(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.block_sparse import block_sparse

        return block_sparse(self, context)


def index_problems(spec: GroupedQuerySpec) -> Iterator[Problem]:
    """Yield the options of grouped-query attention that an indexer of blocks of keys does not have."""
    if spec.token_sinks:
        yield Problem(("token_sinks",), "the indexer does not choose keys by sinks of tokens; remove token_sinks")
    if spec.relative_width is not None:
        yield Problem(("relative_width",), "the indexer does not choose keys by relative terms; remove relative_width")
    if spec.reuse_kv:
        yield Problem(("reuse_kv",), "the keys of an earlier layer have no index; remove reuse_kv")
