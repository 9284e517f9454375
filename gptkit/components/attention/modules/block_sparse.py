"""Runtime of `block-sparse`.

Shapes: B batch, H query heads, K key/value heads, T tokens of this call, S keys in view, E model width, J heads of the
indexer, I features of its queries and keys, N blocks of keys, D features of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from gptkit.components.attention.modules.grouped_query import GroupedQueryAttention
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.cache.state import TokenState
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from gptkit.nn.position import build_position
from gptkit.nn.tensor_parallel import Division
from gptkit.ops.symbols import varies

if TYPE_CHECKING:
    from gptkit.components.attention.block_sparse import BlockSparseSpec

__all__ = ["BlockIndexer", "BlockSelection", "BlockSparseAttention", "chosen_weights"]


@dataclass(frozen=True)
class BlockSelection:
    """Keys that a layer attends to.

    Attributes:
        chosen: whether each query attends to each key, where the mask allows it too, (B, J, T, S).
        scores: of the keys, (B, J, T, S), in fp32 or wider; lowest for keys that the mask excludes.
    """

    chosen: Tensor
    scores: Tensor


class BlockIndexer(nn.Module):
    """Choice of blocks of keys for each query, from projections of their own."""

    def __init__(self, spec: BlockSparseSpec, context: BuildContext) -> None:
        super().__init__()
        assert spec.index_heads is not None
        assert spec.d_index is not None
        self.n_heads, self.d_index = spec.index_heads, spec.d_index
        self.block_size, self.top_blocks, self.local_blocks = spec.block_size, spec.top_blocks, spec.local_blocks
        self.context_length = context.context_length
        self.query = context.linear(context.d_model, self.n_heads * self.d_index, bias=False)
        self.key = context.linear(context.d_model, self.d_index, bias=False)
        self.query_norm = spec.index_norm.build(context, dim=self.d_index)
        self.key_norm = spec.index_norm.build(context, dim=self.d_index)
        self.d_head = spec.head_shape().d_head
        self.rotates = "rotate" in context.parts.position.uses
        self.position = build_position(context, HeadShape(self.n_heads, 1, self.d_head))
        self.position_key = f"position {id(self.position)}"

    def _turned(self, q_BJTI: Tensor, k_B1TI: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
        """Return queries and keys whose first features are rotated by their positions."""
        if not self.rotates:
            return q_BJTI, k_B1TI
        position, sizes = self.position, [self.d_head, self.d_index - self.d_head]
        prepared = forward.once((self.position_key, "prepared"), lambda: position.prepare(forward.positions))
        (q, q_rest), (k, k_rest) = torch.split(q_BJTI, sizes, dim=-1), torch.split(k_B1TI, sizes, dim=-1)
        q, k = position.rotate(q, k, prepared)
        return torch.cat((q, q_rest), dim=-1), torch.cat((k, k_rest), dim=-1)

    def keys(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        """Return this call's keys, (B, 1, T, I)."""
        k_B1TI = self.key_norm(self.key(x_BTE))[:, None]
        return self._turned(k_B1TI, k_B1TI, forward)[1]

    def forward(
        self, x_BTE: Tensor, k_B1SI: Tensor, visible_B1TS: Tensor, forward: Forward, offset: KeyOffset
    ) -> BlockSelection:
        """Return the chosen keys of each query.

        Args:
            x_BTE: the layer's input.
            k_B1SI: the keys of `keys`, of all tokens in view.
            visible_B1TS: whether the mask allows a query to attend to a key, (1 or B, 1, T, S).
            offset: the location of the keys in view.
        """
        q_BJTI = self.query_norm(self.query(x_BTE).unflatten(-1, (self.n_heads, self.d_index))).transpose(1, 2)
        wide = torch.promote_types(x_BTE.dtype, torch.float32)
        q_BJTI = self._turned(q_BJTI, q_BJTI[:, :1], forward)[0].to(wide)
        lowest = torch.finfo(wide).min / 4
        scores_BJTS = (q_BJTI @ k_B1SI.to(wide).transpose(-1, -2)).to(wide)  # autocast rounds products
        scores_BJTS = scores_BJTS.masked_fill(~visible_B1TS, lowest)
        n_keys = k_B1SI.shape[2]
        blocks = forward.key_positions(offset, n_keys).clamp_min(0) // self.block_size
        blocks_BJTS = (blocks[:, None, None] if blocks.dim() > 1 else blocks).expand_as(scores_BJTS)
        n_blocks = self._n_blocks(n_keys, offset)
        best_BJTN = scores_BJTS.new_full((*scores_BJTS.shape[:3], n_blocks), lowest)
        best_BJTN = best_BJTN.scatter_reduce(-1, blocks_BJTS, scores_BJTS, "amax")
        if self.local_blocks:
            own = forward.query_positions.clamp_min(0) // self.block_size
            own_BTL = own[..., None] - torch.arange(self.local_blocks, device=own.device)
            own_BTL = own_BTL if own_BTL.dim() > 2 else own_BTL[None]
            local_BJTL = own_BTL.clamp_min(0)[:, None].expand(*scores_BJTS.shape[:3], -1)
            best_BJTN = best_BJTN.scatter(-1, local_BJTL, torch.finfo(wide).max)
        # A stable order: of equal scores, the first blocks are chosen, in every split of a text into calls.
        n_top = torch.sym_min(n_blocks, self.top_blocks) if varies(n_blocks) else self.top_blocks  # type: ignore[no-untyped-call]
        order_BJTN = best_BJTN.sort(dim=-1, descending=True, stable=True).indices[..., :n_top]
        chosen_BJTN = torch.zeros_like(best_BJTN, dtype=torch.bool).scatter(-1, order_BJTN, True)
        return BlockSelection(chosen_BJTN.gather(-1, blocks_BJTS), scores_BJTS)

    def _n_blocks(self, n_keys: int, offset: KeyOffset) -> int:
        """Return a number of blocks that all keys in view are in."""
        last = n_keys + offset if isinstance(offset, int) else self.context_length
        n_blocks = -(-last // self.block_size)
        # One more, without keys: a traced number that may be one is fixed in a program.
        return n_blocks + 1 if varies(n_blocks) else n_blocks


@torch.no_grad()
def chosen_weights(
    attention: GroupedQueryAttention, q_BHTD: Tensor, k_BKSD: Tensor, visible_B1TS: Tensor, added_BHTS: Tensor
) -> Tensor:
    """Return the attention weights, (B, H, T, S), in fp32, without those of sinks, for the loss of an indexer.

    Args:
        attention: the attention.
        q_BHTD, k_BKSD: its queries, and the keys in view, as it multiplies them.
        visible_B1TS: whether the mask allows a query to attend to a key.
        added_BHTS: the term of the choice: lowest for keys that are not chosen.
    """
    lowest = torch.finfo(torch.float32).min / 4
    k_BHSD = k_BKSD.repeat_interleave(attention.heads.n_heads // attention.heads.n_kv_heads, dim=1)
    scores = (q_BHTD @ k_BHSD.transpose(-1, -2)).float() * attention.scale
    if attention.softcap is not None:
        scores = attention.softcap * torch.tanh(scores / attention.softcap)
    return (scores + added_BHTS).masked_fill(~visible_B1TS, lowest).clamp(min=lowest).softmax(dim=-1)


class BlockSparseAttention(GroupedQueryAttention):
    """Runtime of `block-sparse`. Keys that are not chosen get a term that makes their weights zero."""

    def __init__(self, spec: BlockSparseSpec, context: BuildContext) -> None:
        super().__init__(spec, context, added_term=True)
        self.n_layers = context.n_layers
        self.loss_weights = {"indexer": spec.index_loss}
        self.indexer = BlockIndexer(spec, context)

    def divisions(self) -> Mapping[str, Division]:
        return {}  # the loss needs the weights of all heads

    @property
    def cached_shapes(self) -> tuple[tuple[int, int], ...]:
        return (*super().cached_shapes, (1, self.indexer.d_index))

    def attend_own(self, x_BTE: Tensor, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, forward: Forward) -> Tensor:
        if self.rotates or self.norms_after:
            q_BHTD, k_BKTD = self.rotate(q_BHTD, k_BKTD, forward)
        x_BTE = x_BTE.detach()
        index_B1TI = self.indexer.keys(x_BTE, forward)
        state = cast("TokenState | None", forward.state(self))
        offset: KeyOffset = forward.offset
        if state is not None:
            offset, (k_BKTD, v_BKTD, index_B1TI) = state.append(k_BKTD, v_BKTD, index_B1TI)
        if self.provided_key is not None:
            forward.publish(self, self.provided_key, (k_BKTD, v_BKTD, offset))
        visible_B1TS = forward.mask(offset, k_BKTD.shape[2], window=self.current_window, pattern=self.pattern).dense()
        selection = self.indexer(x_BTE, index_B1TI, visible_B1TS, forward, offset)
        added_BJTS = torch.zeros_like(selection.chosen, dtype=x_BTE.dtype)
        added_BJTS = added_BJTS.masked_fill(~selection.chosen, torch.finfo(x_BTE.dtype).min / 4)
        added_BHTS = added_BJTS.repeat_interleave(self.heads.n_heads // self.indexer.n_heads, dim=1)
        self._learn(selection, q_BHTD, k_BKTD, visible_B1TS, added_BHTS, forward)
        return self.score(q_BHTD, k_BKTD, v_BKTD, forward, offset, added_BHTS)

    def _learn(
        self,
        selection: BlockSelection,
        q_BHTD: Tensor,
        k_BKSD: Tensor,
        visible_B1TS: Tensor,
        added_BHTS: Tensor,
        forward: Forward,
    ) -> None:
        """Add the loss of the indexer for this call's queries."""
        weight = self.loss_weights["indexer"]
        if not self.training or not weight or not torch.is_grad_enabled():
            return
        lowest = torch.finfo(torch.float32).min / 4
        weights_BHTS = chosen_weights(self, q_BHTD, k_BKSD, visible_B1TS, added_BHTS)
        p_BJTS = torch.unflatten(weights_BHTS, 1, (self.indexer.n_heads, -1)).mean(dim=2)
        scaled_BJTS = selection.scores * self.indexer.d_index**-0.5
        log_q_BJTS = scaled_BJTS.masked_fill(~(selection.chosen & visible_B1TS), lowest).log_softmax(dim=-1)
        divergence_BT = (torch.xlogy(p_BJTS, p_BJTS) - p_BJTS * log_q_BJTS).sum(dim=-1).mean(dim=1)
        forward.add_loss("indexer", forward.counted_mean(divergence_BT) * (weight / self.n_layers))
