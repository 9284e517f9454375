"""`compressed` attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component, optional_component
from gptkit.core.errors import Problem
from gptkit.kinds.attention import AttentionSpec, head_problems
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.position import HeadShape
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.components.attention.modules.compressed import CompressedAttention

__all__ = ["CompressedSpec"]


class CompressedSpec(AttentionSpec):
    """Attention to a window of tokens and to compressed entries, each of which stands for a block of earlier tokens.

    Formula:
        q_h = rotate(qnorm(W_q x)_h), or of W_q,up norm(W_q,down x) with `q_rank`;  c = rotate(norm(W_c x)), key and value
        block b of m tokens: e_b = rotate(norm(Σ_j softmax_j(G x_j + bias_j) ⊙ K x_j)) at position b · m, each feature apart
        With `overlap`, the sum has the tokens of block b − 1 too, for which G, K and the bias are others.
        a_h = softmax(q_h · [c of the last `sliding_window` tokens, e_b of full blocks] / √d_head)
        With `top_k`, only the blocks with the largest Σ_j w_j relu(i_j · k_b), where k_b are compressed as e_b, for an
        indexer of its own: i = rotate(W_i c_q), c_q the latent of the queries or x, w = W_w x / √(d_index · index_heads).
        o_h = rotate⁻¹(Σ a_h · values);  y = W_o [o_1 … o_H], or W_o [A_g o of each group g of heads] with `output_rank`
        In training: loss += index_loss · mean KL(p ‖ softmax(index scores of the chosen blocks)) / n_layers, p the mean over
        heads of the attention to these blocks, divided by its sum; the indexer has no other gradient.

    Shapes:
        (B, T, d_model) → (B, T, d_model)
        cache: d_head values per block (d_index more with `top_k`), and a window of tokens

    Paper:
        https://arxiv.org/abs/2502.11089

    Notes:
        Compressed sparse attention of DeepSeek-V4 is `block_size: 4, overlap: true, top_k: 512`, its heavily compressed
        attention `block_size: 128, overlap: false, top_k: null`; its other layers have no blocks. The paper, native sparse
        attention, introduced compressed blocks beside a window. The last d_rotary features are rotated; values are rotated
        as keys, so the output is rotated back. Blocks count from the first token of a row or document. This implementation
        computes scores of all blocks and excludes those not chosen: it defines the model exactly, and does not save time.
    """

    formula: ClassVar[str] = r"""
        e_b = \operatorname{norm}\left(\sum_{j \in b} \operatorname{softmax}_j(G x_j + \beta_j) \odot K x_j\right)
        \text{chosen}(t) = \operatorname{topk}_{b < \lfloor t / m \rfloor} \sum_i w_i \operatorname{relu}(i_i \cdot k_b)
        a_h = \operatorname{softmax}\left(\frac{q_h \cdot [c_{t-w+1} \dots c_t\ e_{\text{chosen}(t)}]}{\sqrt{d}}\right)
    """

    name: Literal["compressed"] = "compressed"
    accepts: ClassVar[frozenset[str]] = frozenset({"rotate"})

    n_heads: int | None = Field(
        None,
        ge=1,
        description="Number of query heads, which share one key that is the value too; d_model / d_head by default.",
    )
    d_head: int = Field(64, ge=2, description="Features of a query, and of the key that all heads share.")
    d_rotary: int = Field(
        32, ge=2, description="Features of a query and key that are rotated by the position, the last ones."
    )
    q_rank: int | None = Field(
        None,
        ge=1,
        description="Width of the latent that queries are projected from; by default, they are projected directly.",
    )
    sliding_window: int = Field(
        128, ge=1, description="Tokens that a query attends to one by one, the current one included."
    )
    block_size: int | None = Field(4, ge=1, description="Tokens of a block that is compressed; null for the window alone.")
    overlap: bool = Field(True, description="Compress the previous block's tokens too, by projections of their own.")
    top_k: int | None = Field(512, ge=1, description="Number of blocks that an indexer chooses for a query; null for all.")
    index_heads: int = Field(64, ge=1, description="Number of the indexer's heads.")
    d_index: int = Field(128, ge=1, description="Features of the indexer's queries and keys; the last d_rotary are rotated.")
    index_loss: float = Field(1.0, ge=0, description="Weight of the indexer's loss in training.")
    norm: NormSpec = component("rms", description="Norm of the queries' latent, of keys, and of compressed entries.")
    q_norm: NormSpec | None = optional_component(description="Norm of each head's query (DeepSeek-V4: rms without weights).")
    sinks: bool = Field(False, description="Add a learned logit per head to the softmax, without a value (attention sinks).")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping an attention weight in training.")
    output_groups: int = Field(1, ge=1, description="Groups of heads whose outputs are projected apart, with output_rank.")
    output_rank: int | None = Field(
        None, ge=1, description="Width to which each group's output is projected before the output projection."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"n_heads": 2, "d_head": 12, "d_rotary": 4, "sliding_window": 3, "block_size": 2, "top_k": None},
        {"n_heads": 4, "d_head": 8, "d_rotary": 4, "q_rank": 10, "sliding_window": 4, "overlap": False, "top_k": None}
        | {"q_norm": {"name": "rms", "scale": False}, "sinks": True, "output_groups": 2, "output_rank": 6},
        {"n_heads": 2, "d_head": 8, "d_rotary": 4, "sliding_window": 4, "block_size": 2, "top_k": 3}
        | {"q_rank": 9, "index_heads": 8, "d_index": 6, "index_loss": 0.1},
        {"n_heads": 2, "d_head": 10, "d_rotary": 8, "sliding_window": 5, "block_size": None},
    )

    @property
    def depends_on_position(self) -> bool:
        return self.block_size is not None  # blocks count from the first token

    @property
    def indexed(self) -> bool:
        """Whether an indexer chooses blocks."""
        return self.block_size is not None and self.top_k is not None

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(n_heads=self.n_heads or max(1, context.d_model // self.d_head))

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        assert self.n_heads is not None
        yield from head_problems(context, HeadShape(self.n_heads, 1, self.d_rotary))
        position = context.parts.position
        if position.depends_on_length:
            yield Problem(
                (),
                f"position {position.name!r} depends on the length of the text, and compressed entries are kept as they are",
            )
        if self.d_rotary > self.d_head:
            yield Problem(("d_rotary",), f"should be at most d_head, {self.d_head}; lower it, or raise d_head")
        if self.indexed and self.d_rotary > self.d_index:
            yield Problem(("d_index",), f"should be at least d_rotary, {self.d_rotary}; raise it, or lower d_rotary")
        if self.n_heads % self.output_groups:
            yield Problem(("output_groups",), f"should be a divisor of n_heads, {self.n_heads}; choose another number")
        if self.output_groups > 1 and self.output_rank is None:
            yield Problem(("output_groups",), "groups are projected to output_rank features each; set output_rank")

    def build(self, context: BuildContext) -> CompressedAttention:
        from gptkit.components.attention.modules.compressed import CompressedAttention

        return CompressedAttention(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.attention.written.compressed import compressed

        return compressed(self, context)
