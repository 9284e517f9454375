"""Sparse attentions with one error each."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.components.attention.block_sparse import BlockSparseSpec
from gptkit.components.attention.modules.block_sparse import BlockIndexer, BlockSelection, BlockSparseAttention
from gptkit.components.attention.modules.latent import Selection
from gptkit.components.attention.modules.pooled_sparse import PooledIndexer, PooledSparseAttention
from gptkit.components.attention.modules.sparse_latent import SparseLatentAttention
from gptkit.components.attention.pooled_sparse import PooledSparseSpec
from gptkit.components.attention.sparse_latent import SparseLatentSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from tests.mutants.attention import blind
from tests.mutants.mutant import ANYTHING, Mutant, WithRuntime, become


class WrongSparse(WithRuntime, SparseLatentSpec):
    """Base of sparse attentions with the runtime class `runtime_class`."""

    n_heads: int | None = Field(2, description="Number of heads.")
    kv_rank: int | None = Field(10, description="Width of the latent.")
    d_rotary: int = Field(4, description="Rotated features.")
    top_k: int = Field(6, description="Number of keys.")
    index_heads: int = Field(8, description="Heads of the indexer.")
    d_index: int = Field(6, description="Features of the indexer.")
    runtime_class: ClassVar[type[SparseLatentAttention]]
    twin_class = SparseLatentSpec


class ChoosesPadding(WrongSparse):
    """Choose padding among the keys."""

    class Runtime(SparseLatentAttention):
        def select(
            self, x_BTE: Tensor, c_BTC: Tensor, more: tuple[Tensor, ...], n_keys: int, forward: Forward, offset: KeyOffset
        ) -> Selection | None:
            return super().select(x_BTE, c_BTC, more, n_keys, blind(forward, left_padding_B=None), offset)

    name: Literal["chooses-padding"] = "chooses-padding"
    runtime_class = Runtime
    caught_by = "padding-is-ignored"
    also = ANYTHING


class IndexesWithoutPosition(WrongSparse):
    """Cache the indexer's keys in another order of features."""

    class Runtime(SparseLatentAttention):
        def more_keys(self, x_BTE: Tensor, forward: Forward) -> tuple[Tensor, ...]:
            (keys,) = super().more_keys(x_BTE, forward)
            return (keys.roll(1, dims=-1) if x_BTE.shape[1] == 1 else keys,)

    name: Literal["indexes-otherwise"] = "indexes-otherwise"
    runtime_class = Runtime
    caught_by = "cached-equals-full"
    also = ANYTHING


class ChoosesFuture(WrongSparse):
    """Choose among later keys too, so that fewer earlier ones are attended to."""

    class Runtime(SparseLatentAttention):
        def select(
            self, x_BTE: Tensor, c_BTC: Tensor, more: tuple[Tensor, ...], n_keys: int, forward: Forward, offset: KeyOffset
        ) -> Selection | None:
            x_BTE = x_BTE.mean(dim=1, keepdim=True).expand_as(x_BTE)
            return super().select(x_BTE, c_BTC, more, n_keys, forward, offset)

    name: Literal["chooses-by-the-future"] = "chooses-by-the-future"
    runtime_class = Runtime
    caught_by = "no-future-leak"
    also = ANYTHING


class WrongBlocks(Mutant, BlockSparseSpec):
    """Base of attentions to blocks, whose indexer has the runtime class `indexer_class`."""

    n_heads: int | None = Field(4, description="Number of heads.")
    n_kv_heads: int | None = Field(2, description="Key/value heads.")
    d_head: int | None = Field(6, description="Features of a head.")
    block_size: int = Field(3, description="Positions of a block.")
    top_blocks: int = Field(2, description="Number of blocks.")
    indexer_class: ClassVar[type[BlockIndexer]]
    twin_class = BlockSparseSpec

    def build(self, context: BuildContext) -> BlockSparseAttention:
        made: BlockSparseAttention = super().build(context)
        become(made.indexer, self.indexer_class)
        return made


class BlocksOfTheBatch(WrongBlocks):
    """Count the positions of blocks from the first padding."""

    class Indexer(BlockIndexer):
        def forward(
            self, x_BTE: Tensor, k_B1SI: Tensor, visible_B1TS: Tensor, forward: Forward, offset: KeyOffset
        ) -> BlockSelection:
            return super().forward(x_BTE, k_B1SI, visible_B1TS, blind(forward, left_padding_B=None), offset)

    name: Literal["blocks-of-the-batch"] = "blocks-of-the-batch"
    indexer_class = Indexer
    caught_by = "padding-is-ignored"
    also = ANYTHING


class BlocksByTheFuture(WrongBlocks):
    """Score blocks by keys after the query too."""

    class Indexer(BlockIndexer):
        def forward(
            self, x_BTE: Tensor, k_B1SI: Tensor, visible_B1TS: Tensor, forward: Forward, offset: KeyOffset
        ) -> BlockSelection:
            return super().forward(x_BTE, k_B1SI, torch.ones_like(visible_B1TS), forward, offset)

    name: Literal["blocks-by-the-future"] = "blocks-by-the-future"
    indexer_class = Indexer
    caught_by = "no-future-leak"
    also = ANYTHING


class IndexesTheCall(WrongBlocks):
    """Cache the indexer's keys in another order of features."""

    class Indexer(BlockIndexer):
        def keys(self, x_BTE: Tensor, forward: Forward) -> Tensor:
            keys = super().keys(x_BTE, forward)
            return keys.roll(1, dims=-1) if x_BTE.shape[1] == 1 else keys

    name: Literal["indexes-the-call"] = "indexes-the-call"
    indexer_class = Indexer
    caught_by = "cached-equals-full"
    also = ANYTHING


class WrongMeans(Mutant, PooledSparseSpec):
    """Base of attentions to blocks by their means, whose indexer has the runtime class `indexer_class`."""

    n_heads: int | None = Field(4, description="Number of heads.")
    n_kv_heads: int | None = Field(2, description="Key/value heads.")
    d_head: int | None = Field(6, description="Features of a head.")
    block_size: int = Field(3, description="Tokens of a block.")
    top_blocks: int = Field(2, description="Number of blocks.")
    index_heads: int = Field(8, description="Queries of the indexer.")
    indexer_class: ClassVar[type[PooledIndexer]]
    twin_class = PooledSparseSpec

    def build(self, context: BuildContext) -> PooledSparseAttention:
        made: PooledSparseAttention = super().build(context)
        become(made.indexer, self.indexer_class)
        return made


class MeansOfPadding(WrongMeans):
    """Rotate means by the positions in a padded row."""

    class Indexer(PooledIndexer):
        def forward(self, q_BTJI: Tensor, m_BNI: Tensor, forward: Forward) -> Tensor:
            return super().forward(q_BTJI, m_BNI, blind(forward, left_padding_B=None))

    name: Literal["means-of-padding"] = "means-of-padding"
    indexer_class = Indexer
    caught_by = "padding-is-ignored"
    also = ANYTHING


class MeansOfTheFuture(WrongMeans):
    """Choose blocks by the mean of the queries of all tokens."""

    class Indexer(PooledIndexer):
        def forward(self, q_BTJI: Tensor, m_BNI: Tensor, forward: Forward) -> Tensor:
            return super().forward(q_BTJI.mean(dim=1, keepdim=True).expand_as(q_BTJI), m_BNI, forward)

    name: Literal["means-of-the-future"] = "means-of-the-future"
    indexer_class = Indexer
    caught_by = "no-future-leak"
    also = ANYTHING


class MeansOfTheCall(WrongMeans):
    """Keep the keys of single tokens in another order of features."""

    class Indexer(PooledIndexer):
        def project(self, x_BTE: Tensor) -> tuple[Tensor, Tensor]:
            q_BTJI, k_BTI = super().project(x_BTE)
            return q_BTJI, k_BTI.roll(1, dims=-1) if x_BTE.shape[1] == 1 else k_BTI

    name: Literal["means-of-the-call"] = "means-of-the-call"
    indexer_class = Indexer
    caught_by = "cached-equals-full"
    also = ANYTHING
