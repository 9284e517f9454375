"""Runtime of `pooled-sparse`.

Shapes: B batch, H query heads, K key/value heads, T tokens of this call, S keys in view, E model width, J queries of the
indexer for a token, I features of its queries and keys, N blocks of keys, M tokens of a block, D features of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.components.attention.modules.block_sparse import chosen_weights
from gptkit.components.attention.modules.compression import (
    Blocks,
    blocks_of,
    chosen_blocks,
    divergence,
    gathered,
    offset_of,
)
from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.blocks import BlockState
from gptkit.nn.cache.composite import CompositeState
from gptkit.nn.cache.state import LayerState, TokenState
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from gptkit.nn.position import build_position
from gptkit.nn.tensor_parallel import Division

if TYPE_CHECKING:
    from gptkit.components.attention.pooled_sparse import PooledSparseSpec

__all__ = ["PooledIndexer", "PooledSparseAttention", "blocks_in_view"]


class PooledIndexer(nn.Module):
    """Scores of blocks of keys for each query, from a projection of its own."""

    def __init__(self, spec: PooledSparseSpec, context: BuildContext) -> None:
        super().__init__()
        assert spec.d_index is not None
        self.n_heads, self.d_index, self.size = spec.index_heads, spec.d_index, spec.block_size
        self.d_head = spec.head_shape().d_head
        self.qk = context.linear(context.d_model, (self.n_heads + 1) * self.d_index, bias=False)
        """Rows: the queries one after another, then the key."""
        self.query_norm = spec.index_norm.build(context, dim=self.d_index)
        self.key_norm = spec.index_norm.build(context, dim=self.d_index)
        self.rotates = "rotate" in context.parts.position.uses
        self.position = build_position(context, HeadShape(self.n_heads, 1, self.d_head))

    def project(self, x_BTE: Tensor) -> tuple[Tensor, Tensor]:
        """Return this call's queries before their norm, (B, T, J, I), and keys, (B, T, I)."""
        q_BTX, k_BTI = torch.split(self.qk(x_BTE), [self.n_heads * self.d_index, self.d_index], dim=-1)
        return torch.unflatten(q_BTX, -1, (self.n_heads, self.d_index)), k_BTI

    def entries(self, k_BSI: Tensor, offset: int | Tensor, blocks: Blocks, forward: Forward) -> Tensor:
        """Return the means of the blocks of this call, (B, N, I); those of blocks that are not full are not used.

        Args:
            k_BSI: the keys in view.
            offset: the index in its row of the first of them.
            blocks: the blocks.
            forward: the context.
        """
        columns_BNM = (blocks.end_BN - self.size + 1)[..., None] + torch.arange(self.size, device=k_BSI.device)
        wide = torch.promote_types(k_BSI.dtype, torch.float32)
        mean_BNI = gathered(k_BSI, columns_BNM - offset).to(wide).mean(dim=2).to(k_BSI.dtype)
        return self._turned(self.key_norm(mean_BNI)[:, None], blocks.positions_BN, "blocks", forward)[1][:, 0]

    def forward(self, q_BTJI: Tensor, m_BNI: Tensor, forward: Forward) -> Tensor:
        """Return the scores, (B, T, N), in fp32 or wider."""
        wide = torch.promote_types(q_BTJI.dtype, torch.float32)
        q_BJTI = self._turned(self.query_norm(q_BTJI).transpose(1, 2), forward.positions, "tokens", forward)[0].to(wide)
        scores_BJTN = (q_BJTI @ m_BNI.to(wide).transpose(-1, -2)[:, None]).to(wide)  # autocast rounds products
        scores_BTN: Tensor = scores_BJTN.relu().sum(dim=1) * self.d_index**-0.5
        return scores_BTN

    def _turned(self, x_BJTI: Tensor, positions: Tensor, where: str, forward: Forward) -> tuple[Tensor, Tensor]:
        """Return vectors rotated by these positions as queries, and the first of each token as keys."""
        if not self.rotates:
            return x_BJTI, x_BJTI[:, :1]
        position, more = self.position, self.d_head - self.d_index
        key = (f"position {id(position)}", f"{where} of {self.size}")
        prepared: Any = forward.once(key, lambda: position.prepare(positions))
        # The features of a head are rotated; where a vector has fewer, those that it lacks are not.
        head = F.pad(x_BJTI, (0, more)) if more > 0 else x_BJTI[..., : self.d_head]
        turned = position.rotate(head, head[:, :1], prepared)
        if more >= 0:
            q, k = (each[..., : self.d_index] for each in turned)
            return q, k
        rest = x_BJTI[..., self.d_head :]
        return torch.cat((turned[0], rest), dim=-1), torch.cat((turned[1], rest[:, :1]), dim=-1)


class PooledSparseAttention(GroupedQueryAttention):
    """Runtime of `pooled-sparse`. Keys that are not chosen get a term that makes their weights zero."""

    def __init__(self, spec: PooledSparseSpec, context: BuildContext) -> None:
        super().__init__(spec, context, added_term=True)
        self.n_layers, self.top_blocks = context.n_layers, spec.top_blocks
        self.loss_weights = {"indexer": spec.index_loss}
        self.indexer = PooledIndexer(spec, context)

    def divisions(self) -> Mapping[str, Division]:
        return {}  # the loss needs the weights of all heads

    def attend_own(self, x_BTE: Tensor, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, forward: Forward) -> Tensor:
        if self.rotates or self.norms_after:
            q_BHTD, k_BKTD = self.rotate(q_BHTD, k_BKTD, forward)
        state = cast("CompositeState | None", forward.state(self))
        offset: KeyOffset = forward.offset
        if state is not None:
            offset, (k_BKTD, v_BKTD) = cast("TokenState", state["tokens"]).append(k_BKTD, v_BKTD)
        if self.provided_key is not None:
            forward.publish(self, self.provided_key, (k_BKTD, v_BKTD, offset))
        index_BTJI, index_BTI = self.indexer.project(x_BTE.detach())
        means_BNI = self._means(index_BTI, state, forward)
        visible_B1TS = forward.mask(offset, k_BKTD.shape[2], window=self.current_window, pattern=self.pattern).dense()
        columns_BTS, whole_BTN = blocks_in_view(visible_B1TS[:, 0], means_BNI, self.indexer.size, offset, forward)
        scores_BTN = self.indexer(index_BTJI, means_BNI, forward)
        chosen_BTN, scores_BTN = chosen_blocks(scores_BTN, whole_BTN[..., :-1], self.top_blocks)
        # Keys are attended to in a chosen block, and in one that the query does not see as a whole.
        whole_BTS = whole_BTN.gather(-1, columns_BTS)
        excluded_BTS = whole_BTS & ~F.pad(chosen_BTN, (0, 1)).gather(-1, columns_BTS)
        added_B1TS = torch.zeros_like(excluded_BTS, dtype=x_BTE.dtype)
        added_B1TS = added_B1TS.masked_fill(excluded_BTS, torch.finfo(x_BTE.dtype).min / 4)[:, None]
        weight = self.loss_weights["indexer"] / self.n_layers
        if self.training and weight and torch.is_grad_enabled():
            weights_BHTS = chosen_weights(self, q_BHTD, k_BKTD, visible_B1TS, added_B1TS) * whole_BTS[:, None]
            sums_BHTN = weights_BHTS.new_zeros(*weights_BHTS.shape[:3], whole_BTN.shape[2])
            sums_BHTN = sums_BHTN.scatter_add(-1, columns_BTS[:, None].expand_as(weights_BHTS), weights_BHTS)
            forward.add_loss("indexer", divergence(sums_BHTN[..., :-1], scores_BTN, forward) * weight)
        return self.score(q_BHTD, k_BKTD, v_BKTD, forward, offset, added_B1TS)

    def _means(self, k_BTI: Tensor, state: CompositeState | None, forward: Forward) -> Tensor:
        """Return the means of blocks in view, (B, N, I)."""
        size = self.indexer.size
        blocks = forward.once(("blocks", size), lambda: blocks_of(forward, size, state is not None))
        if state is None:
            return self.indexer.entries(k_BTI, forward.offset, blocks, forward)
        first, (recent_B1SI,) = cast("TokenState", state["recent"]).append(k_BTI[:, None])
        kept = cast("BlockState", state["means"])
        kept.write(blocks.index_BN, self.indexer.entries(recent_B1SI[:, 0], offset_of(first), blocks, forward))
        n_seen = (forward.offset + forward.n_tokens) // size if isinstance(forward.offset, int) else None
        return kept.view(None if n_seen is None else max(1, n_seen))[0]

    def new_state(self, allocation: Allocation) -> LayerState:
        tokens = super().new_state(allocation)
        assert tokens is not None
        recent = allocation.tokens((1, self.indexer.d_index), window=self.indexer.size)
        return CompositeState(tokens=tokens, recent=recent, means=allocation.blocks(self.indexer.size, self.indexer.d_index))

    def state_bytes_per_token(self, dtype: torch.dtype) -> float:
        return super().state_bytes_per_token(dtype) + self.indexer.d_index * dtype.itemsize / self.indexer.size


def blocks_in_view(
    visible_BTS: Tensor, means_BNI: Tensor, size: int, offset: KeyOffset, forward: Forward
) -> tuple[Tensor, Tensor]:
    """Return the number of each key's block among those in view, and which of them each query sees as a whole.

    Args:
        visible_BTS: whether the mask allows a query to attend to a key, (1 or B, T, S).
        means_BNI: the means in view.
        size: M.
        offset: the location of the keys in view.
        forward: the context.

    Returns:
        The numbers, (B, T, S), with N for a block without a mean, and whether all tokens are seen, (B, T, N + 1).
    """
    n_batch, n_blocks, _ = means_BNI.shape
    positions = forward.key_positions(offset, visible_BTS.shape[2]).clamp_min(0)
    positions_BS = (positions if positions.dim() == 2 else positions[None]).expand(n_batch, -1)
    columns_BS = positions_BS // size
    if forward.documents_BT is not None:  # means are in the order in which blocks end, whatever their document
        ends_BS = ((positions_BS + 1) % size == 0).long()
        columns_BS = ends_BS.cumsum(dim=1) - ends_BS
    seen_BTS = visible_BTS.expand(n_batch, -1, -1)
    columns_BTS = columns_BS.clamp(max=n_blocks)[:, None].expand_as(seen_BTS)
    counts_BTN = torch.zeros(*seen_BTS.shape[:2], n_blocks + 1, dtype=torch.int32, device=seen_BTS.device)
    counts_BTN = counts_BTN.scatter_add(-1, columns_BTS, seen_BTS.int())
    whole_BTN = (counts_BTN == size) & (torch.arange(n_blocks + 1, device=seen_BTS.device) < n_blocks)
    return columns_BTS, whole_BTN
