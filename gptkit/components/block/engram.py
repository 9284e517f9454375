"""Block with embeddings of n-grams of token ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.core.component import component
from gptkit.core.errors import Problem
from gptkit.kinds.block import BlockSpec, Step, Within
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import stacking_problem
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.block import Block

__all__ = ["EngramSpec"]


class EngramSpec(BlockSpec):
    """Another block, after an addition of embeddings of the last token ids, looked up by a hash and gated (Engram).

    Formula:
        e = concatenation over n = 2 … max_ngram and `heads` tables of table[hash(last n ids) mod its size]
        k = norm_k(W_k e),  v = W_v e,  s = k · norm_q(x) / √d_model,  u = σ(sign(s) √max(|s|, 1e-6)) v
        x ← x + u + silu(conv(norm_v(u))), then x ← block(x)
        conv: of each feature over `conv_width` tokens, max_ngram apart: Σ_i w_i ⊙ norm_v(u)_{t − max_ngram · i}
        hash: id_0 · m_0 xor … xor id_{n−1} · m_{n−1}, with odd factors m that follow from `seed` and the layer
        If the block has N residual streams, k, s, u, the norms and the convolution are N, one for each stream.

    Shapes:
        (B, T, d_model) → (B, T, d_model); all tables are one, (rows, d_embedding / ((max_ngram − 1) · heads))
        W_k (N · d_model, d_embedding), W_v (d_model, d_embedding), w (N · d_model, 1, conv_width)

    Paper:
        https://arxiv.org/abs/2601.07372

    Notes:
        Qwen 4 Exp has such layers (its per-layer embedding), with 20,000,000 rows or more in each table. Each table has a
        prime number of rows of its own, from `table_rows` on, over all layers with this block. Of the tables, only the
        rows of the tokens' n-grams are read. The weights of the convolution are initially 0. Norms are those of the layer.
    """

    formula: ClassVar[str] = r"""
        e = [\text{table}_{n,j}[\operatorname{hash}_{n,j}(\text{id}_{t-n+1} \dots \text{id}_t)]]_{n,j}
        u = \sigma\left(\frac{\operatorname{norm}(W_k e) \cdot \operatorname{norm}(x)}{\sqrt{d}}\right) W_v e
        x \leftarrow x + u + \operatorname{silu}(\operatorname{conv}(\operatorname{norm}(u)))
    """

    name: Literal["engram"] = "engram"
    max_ngram: int = Field(3, ge=2, description="Number of ids of the longest n-gram; each shorter one has tables too.")
    heads: int = Field(8, ge=1, description="Number of tables for each length of n-grams, each with a hash of its own.")
    d_embedding: int | None = Field(
        None, ge=1, description="Features of the embeddings of a token from all tables; d_model by default."
    )
    table_rows: int = Field(20000, ge=2, description="Least number of rows of a table.")
    row_multiple: int = Field(1, ge=1, description="The rows of all tables are padded to a multiple of this number.")
    boundary: int | None = Field(
        None, ge=0, description="Token id that n-grams do not reach over, such as the end of a text; none by default."
    )
    seed: int = Field(0, ge=0, description="Seed of the hash.")
    conv_width: int = Field(4, ge=2, description="Number of tokens of the convolution.")
    block: BlockSpec = component("pre-norm", description="The block after the addition.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "d_embedding": 12, "table_rows": 30},
        {"max_ngram": 4, "heads": 1, "d_embedding": 9, "table_rows": 17, "row_multiple": 16, "boundary": 3, "conv_width": 2}
        | {"seed": 5, "block": {"name": "gated-hyper-connections", "streams": 2, "rank": 4}},
        {"heads": 1, "d_embedding": 4, "table_rows": 11, "conv_width": 3}
        | {"block": {"name": "manifold-hyper-connections", "streams": 2, "iterations": 3}},
    )

    @property
    def final_norm(self) -> bool:
        return self.block.final_norm

    @property
    def wiring(self) -> tuple[Step | Within, ...]:
        return (Step((("gated embeddings of n-grams",),)), Within("block"))

    @property
    def n_tables(self) -> int:
        """Number of tables of a layer."""
        return (self.max_ngram - 1) * self.heads

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(d_embedding=self.d_embedding or context.d_model)

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        assert self.d_embedding is not None
        if self.d_embedding % self.n_tables:
            yield Problem(
                ("d_embedding",),
                f"{self.d_embedding} features cannot be divided among {self.n_tables} tables, (max_ngram − 1) · heads; "
                "choose a multiple",
            )
        reason = stacking_problem(context.parts.norm)
        if reason is not None:
            yield Problem((), f"{reason} over streams; choose another")
        if context.parts.index >= context.n_layers:
            yield Problem((), "has no n-grams for the blocks of a head; choose another block there")

    def build(self, context: BuildContext) -> Block:
        from gptkit.components.block.modules.engram import EngramBlock

        return EngramBlock(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.block.written.engram import engram

        return engram(self, context)
