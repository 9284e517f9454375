"""Sparse latent attentions with one error each."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from gptkit.components.attention.modules.latent import Selection
from gptkit.components.attention.modules.sparse_latent import SparseLatentAttention
from gptkit.components.attention.sparse_latent import SparseLatentSpec
from gptkit.kinds.context import BuildContext
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from tests.mutants.attention import blind
from tests.mutants.mutant import ANYTHING, Mutant, become


class WrongSparse(Mutant, SparseLatentSpec):
    """Base of sparse attentions with the runtime class `runtime_class`."""

    n_heads: int | None = Field(2, description="Number of heads.")
    kv_rank: int | None = Field(10, description="Width of the latent.")
    d_rotary: int = Field(4, description="Rotated features.")
    top_k: int = Field(6, description="Number of keys.")
    index_heads: int = Field(8, description="Heads of the indexer.")
    d_index: int = Field(6, description="Features of the indexer.")
    runtime_class: ClassVar[type[SparseLatentAttention]]
    twin_class = SparseLatentSpec

    def build(self, context: BuildContext) -> SparseLatentAttention:
        made: SparseLatentAttention = become(super().build(context), self.runtime_class)
        return made


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
