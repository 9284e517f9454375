"""Runtime of `compressed`.

Shapes: B batch, H heads, T tokens of this call, S tokens in view, N blocks in view, D features of a head, R rotated
features, C width of the queries' latent, E model width, G groups of heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from gptkit.components.attention.modules.compression import (
    Blocks,
    Compressor,
    Indexer,
    blocks_of,
    chosen_blocks,
    divergence,
    offset_of,
)
from gptkit.kinds.context import BuildContext
from gptkit.kinds.position import HeadShape
from gptkit.nn.attention.base import Attention
from gptkit.nn.cache.allocation import Allocation
from gptkit.nn.cache.blocks import BlockState
from gptkit.nn.cache.composite import CompositeState
from gptkit.nn.cache.state import LayerState, TokenState
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.position import Position, build_position
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.attention.compressed import CompressedSpec

__all__ = ["CompressedAttention", "GroupedDown"]


class GroupedDown(nn.Module):
    """A projection of each group of heads' outputs, without a bias."""

    def __init__(self, n_groups: int, d_in: int, d_out: int) -> None:
        super().__init__()
        self.n_groups = n_groups
        self.weight = nn.Parameter(torch.zeros(n_groups * d_out, d_in // n_groups))
        """Rows: group by group."""

    def initial(self) -> dict[str, Initial]:
        return {"weight": "weight"}

    def forward(self, x_BTX: Tensor) -> Tensor:
        """Return the projected groups one after the other."""
        weight_GOI = torch.unflatten(self.weight, 0, (self.n_groups, -1)).to(x_BTX.dtype)
        x_BTGI = torch.unflatten(x_BTX, -1, (self.n_groups, -1))
        return torch.einsum("btgi,goi->btgo", x_BTGI, weight_GOI).flatten(2)


class CompressedAttention(Attention):
    """Runtime of `compressed`. Keys are values too; entries of blocks follow the tokens of the window."""

    def __init__(self, spec: CompressedSpec, context: BuildContext) -> None:
        super().__init__()
        assert spec.n_heads is not None
        parts = context.parts
        self.layer, self.n_layers = parts.index, context.n_layers
        self.n_heads, self.d_head, self.d_rotary = spec.n_heads, spec.d_head, spec.d_rotary
        self.sliding_window, self.top_k, self.dropout = spec.sliding_window, spec.top_k, spec.dropout
        self.loss_weights = {"indexer": spec.index_loss} if spec.indexed else {}
        self.q_down = None if spec.q_rank is None else context.linear(context.d_model, spec.q_rank, bias=False)
        self.q_latent_norm = None if spec.q_rank is None else spec.norm.build(context, dim=spec.q_rank)
        self.q_up = context.linear(spec.q_rank or context.d_model, spec.n_heads * spec.d_head, bias=False)
        self.q_norm = None if spec.q_norm is None else spec.q_norm.build(context, dim=spec.d_head)
        self.kv = context.linear(context.d_model, spec.d_head, bias=False)
        self.kv_norm = spec.norm.build(context, dim=spec.d_head)
        self.compressor = None if spec.block_size is None else Compressor(spec, context, spec.d_head)
        self.indexer = Indexer(spec, context) if spec.indexed else None
        self.register_parameter("sinks", nn.Parameter(torch.zeros(spec.n_heads)) if spec.sinks else None)
        self.sinks: nn.Parameter | None
        d_out = spec.n_heads * spec.d_head
        rank = spec.output_rank
        self.output_down = None if rank is None else GroupedDown(spec.output_groups, d_out, rank)
        self.output = context.linear(d_out if rank is None else spec.output_groups * rank, context.d_model, bias=False)
        self.rotates = "rotate" in parts.position.uses
        heads = HeadShape(spec.n_heads, 1, spec.d_rotary)
        # Rotations at other positions than the tokens'; positions of equal specs share one module.
        self.position, self.entry_position, self.index_position, self.inverse = (
            build_position(context, heads) for _ in range(4)
        )

    def initial(self) -> dict[str, Initial]:
        return {"output.weight": "output", **({} if self.sinks is None else {"sinks": "zeros"})}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        c_BTC = x_BTE
        if self.q_down is not None and self.q_latent_norm is not None:
            c_BTC = self.q_latent_norm(self.q_down(x_BTE))
        q_BTHD = self.q_up(c_BTC).unflatten(-1, (self.n_heads, self.d_head))
        q_BHTD = (q_BTHD if self.q_norm is None else self.q_norm(q_BTHD)).transpose(1, 2)
        kv_B1TD = self.kv_norm(self.kv(x_BTE))[:, None]
        if self.rotates:
            prepared = self._prepared(self.position, forward.positions, "tokens", forward)
            q_BHTU, q_BHTR = self._split(q_BHTD)
            kv_B1TU, kv_B1TR = self._split(kv_B1TD)
            q_BHTR, kv_B1TR = self.position.rotate(q_BHTR, kv_B1TR, prepared)
            q_BHTD, kv_B1TD = torch.cat((q_BHTU, q_BHTR), dim=-1), torch.cat((kv_B1TU, kv_B1TR), dim=-1)
        state = forward.state(self)
        offset: Any = forward.offset
        tokens = state["tokens"] if isinstance(state, CompositeState) else state
        if tokens is not None:
            offset, (kv_B1TD,) = cast("TokenState", tokens).append(kv_B1TD)
        mask_BTS = forward.mask(offset, kv_B1TD.shape[2], window=self.sliding_window).dense()[:, 0]
        keys_BSD, n_tokens = kv_B1TD[:, 0], kv_B1TD.shape[2]
        scores_BTN = None
        if self.compressor is not None:
            blocks, entries = self._entries(x_BTE, state, forward)
            visible_BTN = self._visible(blocks, entries[0].shape[1], forward)
            if self.indexer is not None:
                scores_BTN = self._index_scores(x_BTE.detach(), c_BTC.detach(), entries[1], forward)
                visible_BTN, scores_BTN = chosen_blocks(scores_BTN, visible_BTN, self.top_k)
            n_batch = x_BTE.shape[0]
            keys_BSD = torch.cat((keys_BSD, entries[0].to(keys_BSD.dtype)), dim=1)
            mask_BTS = torch.cat((mask_BTS.expand(n_batch, -1, -1), visible_BTN), dim=2)
        # In a static cache, the last keys in view are not those of this call.
        windows = isinstance(offset, int) and isinstance(forward.offset, int)
        if forward.weights is not None or self._learns(scores_BTN) or not windows:
            weights_BHTS = self._weights(q_BHTD, keys_BSD, mask_BTS)
            forward.keep_weights(self.layer, weights_BHTS[..., :n_tokens])
            if scores_BTN is not None:
                self._learn(weights_BHTS[..., n_tokens:], scores_BTN, forward)
            out_BHTD = self._sums(weights_BHTS, keys_BSD)
        else:
            out_BHTD = self._by_windows(q_BHTD, keys_BSD, mask_BTS, n_tokens)
        if self.rotates:  # values are rotated as keys are
            prepared = self._prepared(self.inverse, -forward.positions, "inverse", forward)
            out_BHTD = self._turned(self.inverse, out_BHTD, prepared)
        out_BTX = out_BHTD.transpose(1, 2).flatten(2)
        return self.output(out_BTX if self.output_down is None else self.output_down(out_BTX))  # type: ignore[no-any-return]

    def _entries(self, x_BTE: Tensor, state: LayerState | None, forward: Forward) -> tuple[Blocks, tuple[Tensor, ...]]:
        """Return the blocks of this call, and the entries in view, (B, N, D): the attention's, then the indexer's."""
        assert self.compressor is not None
        compressors = [self.compressor, *([] if self.indexer is None else [self.indexer.compressor])]
        size = self.compressor.size
        blocks = forward.once(("blocks", size), lambda: blocks_of(forward, size, state is not None))
        inputs = (x_BTE, x_BTE.detach())  # the indexer learns from its own loss
        recent = [each for one, x in zip(compressors, inputs, strict=False) for each in one.project(x)]
        offset: int | Tensor = forward.offset
        if state is not None:
            first, views = cast("TokenState", cast("CompositeState", state)["recent"]).append(*recent)
            offset, recent = offset_of(first), list(views)
        entries = []
        for index, compressor in enumerate(compressors):
            content, gate = recent[2 * index : 2 * index + 2]
            entries.append(self._placed(compressor(content[:, 0], gate[:, 0], offset, blocks), blocks, forward))
        if state is None:
            return blocks, tuple(entries)
        kept = cast("BlockState", cast("CompositeState", state)["entries"])
        kept.write(blocks.index_BN, *entries)
        n_seen = (forward.offset + forward.n_tokens) // blocks.size if isinstance(forward.offset, int) else None
        return blocks, kept.view(None if n_seen is None else max(1, n_seen))

    def _placed(self, entries_BND: Tensor, blocks: Blocks, forward: Forward) -> Tensor:
        """Return entries whose last features are rotated by the positions of their blocks' first tokens."""
        if not self.rotates:
            return entries_BND
        key = f"blocks of {blocks.size}"
        prepared = self._prepared(self.entry_position, blocks.positions_BN, key, forward)
        return self._turned(self.entry_position, entries_BND[:, None], prepared)[:, 0]

    def _visible(self, blocks: Blocks, n_entries: int, forward: Forward) -> Tensor:
        """Return which entries each query may attend to, (B, T, N): those of blocks that end with it or before."""
        positions = forward.query_positions
        positions_BT = positions if positions.dim() == 2 else positions[None]
        if forward.documents_BT is not None:
            end_B1N = blocks.end_BN[:, None]
            documents_BN = forward.documents_BT.gather(1, blocks.end_BN.clamp_min(0))
            before_BTN = end_B1N <= torch.arange(forward.n_tokens, device=forward.device)[:, None]
            return before_BTN & (end_B1N >= 0) & (documents_BN[:, None] == forward.documents_BT[..., None])
        full_BT1 = (positions_BT[..., None] + 1) // blocks.size
        visible_BTN = torch.arange(n_entries, device=forward.device) < full_BT1
        return visible_BTN.expand(forward.ids_BT.shape[0], -1, -1)

    def _index_scores(self, x_BTE: Tensor, c_BTC: Tensor, k_BND: Tensor, forward: Forward) -> Tensor:
        assert self.indexer is not None
        q_BJTD = self.indexer.queries(c_BTC)
        if self.rotates:
            prepared = self._prepared(self.index_position, forward.positions, "tokens", forward)
            q_BJTD = self._turned(self.index_position, q_BJTD, prepared)
        return self.indexer(x_BTE, q_BJTD, k_BND)  # type: ignore[no-any-return]

    def _learns(self, scores_BTN: Tensor | None) -> bool:
        """Return whether the indexer learns from this call."""
        return scores_BTN is not None and self.training and bool(self.loss_weights["indexer"]) and torch.is_grad_enabled()

    def _learn(self, weights_BHTN: Tensor, scores_BTN: Tensor, forward: Forward) -> None:
        """Add the loss of the indexer for this call's queries."""
        if not self._learns(scores_BTN):
            return
        weight = self.loss_weights["indexer"] / self.n_layers
        forward.add_loss("indexer", divergence(weights_BHTN, scores_BTN, forward) * weight)

    def _prepared(self, position: Position, positions: Tensor, where: str, forward: Forward) -> Any:
        """Return what a position prepares for positions of this call, once for all layers that share it."""
        return forward.once((f"position {id(position)}", where), lambda: position.prepare(positions))

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features that are not rotated, and those that are."""
        return x[..., : x.shape[-1] - self.d_rotary], x[..., x.shape[-1] - self.d_rotary :]

    def _turned(self, position: Position, x_BHTD: Tensor, prepared: Any) -> Tensor:
        """Return vectors whose last features are rotated as keys are."""
        rest, turned = self._split(x_BHTD)
        turned = position.rotate(turned[:, :1], turned, prepared)[1]
        return torch.cat((rest, turned), dim=-1)

    def _weights(self, q_BHTD: Tensor, k_BSD: Tensor, mask_BTS: Tensor) -> Tensor:
        """Return the attention weights, (B, H, T, S), without those of sinks."""
        wide = torch.promote_types(q_BHTD.dtype, torch.float32)
        # All heads have the same keys, so their queries are rows of one product.
        q_BXD = (q_BHTD * self.d_head**-0.5).flatten(1, 2)
        scores_BHTS = torch.unflatten(q_BXD @ k_BSD.transpose(-1, -2), 1, q_BHTD.shape[1:3]).to(wide)
        scores_BHTS = scores_BHTS.masked_fill(~mask_BTS[:, None], float("-inf"))
        n_keys = scores_BHTS.shape[-1]
        if self.sinks is not None:
            sinks_BHT1 = self.sinks.to(wide)[:, None, None].expand(*scores_BHTS.shape[:3], 1)
            scores_BHTS = torch.cat((scores_BHTS, sinks_BHT1), dim=-1)
        weights_BHTS: Tensor = scores_BHTS.softmax(dim=-1)
        return weights_BHTS[..., :n_keys].to(k_BSD.dtype)

    def _sums(self, weights_BHTS: Tensor, k_BSD: Tensor) -> Tensor:
        """Return the heads' outputs, (B, H, T, D)."""
        weights_BXS = dropout(weights_BHTS, self.dropout, self.training).flatten(1, 2)
        return torch.unflatten(weights_BXS @ k_BSD, 1, weights_BHTS.shape[1:3])

    def _by_windows(self, q_BHTD: Tensor, keys_BSD: Tensor, mask_BTS: Tensor, n_tokens: int) -> Tensor:
        """Return the heads' outputs, (B, H, T, D): of as many queries at a time as a window has, which see two windows.

        Args:
            keys_BSD: the tokens in view, of which the last are those of this call, then the entries.
            n_tokens: number of tokens in view.
        """
        n_queries, size = q_BHTD.shape[2], self.sliding_window
        if not isinstance(n_queries, int) or n_queries <= size:  # a number that varies while the model is traced
            return self._sums(self._weights(q_BHTD, keys_BSD, mask_BTS), keys_BSD)
        outputs, before = [], n_tokens - n_queries
        for first in range(0, n_queries, size):
            rows = slice(first, min(first + size, n_queries))
            seen = slice(max(0, before + first - size + 1), before + rows.stop)
            keys = torch.cat((keys_BSD[:, seen], keys_BSD[:, n_tokens:]), dim=1)
            mask = torch.cat((mask_BTS[:, rows, seen], mask_BTS[:, rows, n_tokens:]), dim=2)
            outputs.append(self._sums(self._weights(q_BHTD[:, :, rows], keys, mask), keys))
        return torch.cat(outputs, dim=2)

    def new_state(self, allocation: Allocation) -> LayerState:
        tokens = allocation.tokens((1, self.d_head), window=self.sliding_window, ordered=False)
        if self.compressor is None:
            return tokens
        compressors = [self.compressor, *([] if self.indexer is None else [self.indexer.compressor])]
        shapes = [(1, width) for each in compressors for width in each.widths]
        recent = allocation.tokens(*shapes, window=self.compressor.reach)
        entries = allocation.blocks(self.compressor.size, *(each.width for each in compressors))
        return CompositeState(tokens=tokens, recent=recent, entries=entries)

    def state_bytes_per_token(self, dtype: torch.dtype) -> float:
        if self.compressor is None:
            return 0.0
        widths = self.d_head + (0 if self.indexer is None else self.indexer.d_index)
        return widths * dtype.itemsize / self.compressor.size
