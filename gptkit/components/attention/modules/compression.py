"""Compressed entries of `compressed`: the blocks of a call, what compresses them, and what chooses among them.

Shapes: B batch, T tokens of this call, S tokens in view, N blocks, M tokens of a block, L tokens that an entry is computed
from, D features of an entry, W features of a token that is compressed (D, or 2 D with overlap), J heads of the indexer,
E model width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.cache.view import KeyOffset
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial

if TYPE_CHECKING:
    from gptkit.components.attention.compressed import CompressedSpec

__all__ = ["Blocks", "Compressor", "Indexer", "blocks_of", "chosen_blocks", "divergence", "gathered"]


@dataclass(frozen=True)
class Blocks:
    """Blocks of positions that this call's tokens are in, complete or not.

    Attributes:
        index_BN: the number of each block in its row or document.
        end_BN: the index in its row of the block's last token, which may be a later one.
        size: M.
        last: index in its row of the last token of this call.
    """

    index_BN: Tensor
    end_BN: Tensor
    size: int
    last: int | Tensor

    @property
    def positions_BN(self) -> Tensor:
        """The position of each block's first token."""
        return self.index_BN * self.size


def blocks_of(forward: Forward, size: int, cached: bool) -> Blocks:
    """Return the blocks that this call's tokens are in; without a cache, only as many as may be complete.

    Args:
        forward: the context.
        size: M.
        cached: whether entries are kept, so that those of blocks which are not complete are needed later.
    """
    n_tokens, device = forward.n_tokens, forward.device
    n_blocks = (n_tokens + size - 2) // size + 1 if cached else max(1, n_tokens // size)
    last = forward.offset + n_tokens - 1
    if forward.documents_BT is None:
        positions = forward.query_positions
        first_B1 = (positions if positions.dim() == 2 else positions[None])[:, :1].clamp_min(0)
        index_BN = first_B1 // size + torch.arange(n_blocks, device=device)
        index_BN = index_BN.expand(forward.ids_BT.shape[0], -1)
        start_B1 = 0 if forward.left_padding_B is None else forward.left_padding_B[:, None]
        return Blocks(index_BN, start_B1 + (index_BN + 1) * size - 1, size, last)
    # Packed documents have no cache: the blocks that end in this call, in the order of the text, then empty ones.
    positions_BT = forward.query_positions
    ends_BT = (positions_BT + 1) % size == 0
    rank_BT = torch.where(ends_BT, ends_BT.cumsum(dim=1) - 1, n_blocks)
    columns_BT = torch.arange(n_tokens, device=device).expand_as(rank_BT)
    end_BN = torch.full_like(rank_BT[:, :1], -1).repeat(1, n_blocks + 1).scatter(1, rank_BT, columns_BT)[:, :n_blocks]
    return Blocks(positions_BT.gather(1, end_BN.clamp_min(0)) // size, end_BN, size, last)


def chosen_blocks(scores_BTN: Tensor, visible_BTN: Tensor, top_k: int | None) -> tuple[Tensor, Tensor]:
    """Return which of the visible entries have the `top_k` highest scores, and the scores, lowest for others."""
    lowest = torch.finfo(scores_BTN.dtype).min / 4
    scores_BTN = scores_BTN.masked_fill(~visible_BTN, lowest)
    # A stable order: of equal scores, which are often 0, the first blocks are chosen, in every split into calls.
    order_BTN = scores_BTN.sort(dim=-1, descending=True, stable=True).indices[..., :top_k]
    chosen_BTN = torch.zeros_like(visible_BTN).scatter(-1, order_BTN, True) & visible_BTN
    return chosen_BTN, scores_BTN.masked_fill(~chosen_BTN, lowest)


def divergence(weights_BHTN: Tensor, scores_BTN: Tensor, forward: Forward) -> Tensor:
    """Return the mean over tokens of KL(p ‖ softmax(scores)), p the mean over heads of the weights, divided by its sum."""
    p_BTN = weights_BHTN.detach().to(scores_BTN.dtype).mean(dim=1)
    p_BTN = p_BTN / p_BTN.sum(dim=-1, keepdim=True).clamp(min=1e-20)
    divergence_BT = (torch.xlogy(p_BTN, p_BTN) - p_BTN * scores_BTN.log_softmax(dim=-1)).sum(dim=-1)
    return forward.counted_mean(divergence_BT)


class Compressor(nn.Module):
    """Entries of blocks: sums of projected tokens, with weights that are a softmax over the tokens for each feature."""

    def __init__(self, spec: CompressedSpec, context: BuildContext, width: int) -> None:
        super().__init__()
        assert spec.block_size is not None
        self.size, self.overlap, self.width = spec.block_size, spec.overlap, width
        n_series = 2 if spec.overlap else 1
        self.content = context.linear(context.d_model, n_series * width, bias=False)
        """Rows: with overlap, the features for the next block's entry, then those for the own one."""
        self.gate = context.linear(context.d_model, n_series * width, bias=False)
        self.position_bias = nn.Parameter(torch.zeros(spec.block_size, n_series * width))
        self.norm = spec.norm.build(context, dim=width)

    @property
    def widths(self) -> tuple[int, int]:
        """W of the two tensors that are kept of recent tokens."""
        return self.position_bias.shape[1], self.position_bias.shape[1]

    @property
    def reach(self) -> int:
        """The number of last tokens that entries of the current block are computed from."""
        return self.size * (2 if self.overlap else 1)

    def initial(self) -> dict[str, Initial]:
        return {"position_bias": "zeros"}

    def project(self, x_BTE: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is kept of this call's tokens, (B, 1, T, W) twice: content and gate."""
        return self.content(x_BTE)[:, None], self.gate(x_BTE)[:, None]

    def forward(self, content_BSW: Tensor, gate_BSW: Tensor, offset: int | Tensor, blocks: Blocks) -> Tensor:
        """Return the entries before their rotation, (B, N, D), of the tokens so far.

        Args:
            content_BSW, gate_BSW: what `project` returned, of the tokens in view.
            offset: the index in its row of the first of these tokens.
            blocks: the blocks; of tokens that are not in view, none is needed.
        """
        wide = torch.promote_types(content_BSW.dtype, torch.float32)
        steps_M = torch.arange(self.size, device=content_BSW.device)
        begin_BN1 = (blocks.end_BN - self.size + 1)[..., None]
        first_BN1 = begin_BN1 - blocks.positions_BN[..., None]
        parts = []
        for series, back in enumerate((self.size, 0) if self.overlap else (0,)):
            columns_BNM = begin_BN1 - back + steps_M
            valid_BNM = (columns_BNM >= first_BN1.clamp_min(0)) & (columns_BNM <= blocks.last)
            features = slice(series * self.width, (series + 1) * self.width)
            content, gate = (gathered(each[..., features], columns_BNM - offset) for each in (content_BSW, gate_BSW))
            gate = gate.to(wide) + self.position_bias[:, features].to(wide)
            parts.append((content, gate.masked_fill(~valid_BNM[..., None], torch.finfo(wide).min / 4)))
        content_BNLD, gate_BNLD = (torch.cat(each, dim=2) for each in zip(*parts, strict=True))
        weights_BNLD = gate_BNLD.softmax(dim=2).to(content_BNLD.dtype)
        entries_BND: Tensor = self.norm((content_BNLD * weights_BNLD).sum(dim=2))
        return entries_BND


class Indexer(nn.Module):
    """Scores of blocks for each query, from projections and compressed entries of their own."""

    def __init__(self, spec: CompressedSpec, context: BuildContext) -> None:
        super().__init__()
        self.n_heads, self.d_index = spec.index_heads, spec.d_index
        self.query = context.linear(spec.q_rank or context.d_model, spec.index_heads * spec.d_index, bias=False)
        self.weights = nn.Linear(context.d_model, spec.index_heads, bias=False)
        self.compressor = Compressor(spec, context, spec.d_index)

    def queries(self, c_BTC: Tensor) -> Tensor:
        """Return the queries before their rotation, (B, J, T, D)."""
        return self.query(c_BTC).unflatten(-1, (self.n_heads, self.d_index)).transpose(1, 2)  # type: ignore[no-any-return]

    def forward(self, x_BTE: Tensor, q_BJTD: Tensor, k_BND: Tensor) -> Tensor:
        """Return the scores, (B, T, N), in fp32 or wider."""
        wide = torch.promote_types(x_BTE.dtype, torch.float32)
        scores_BJTN = (q_BJTD.to(wide) @ k_BND.to(wide).transpose(-1, -2)[:, None] * self.d_index**-0.5).relu()
        weights_BJT1 = self.weights(x_BTE).to(wide).transpose(1, 2)[..., None] * self.n_heads**-0.5
        scores_BTN: Tensor = (scores_BJTN * weights_BJT1).sum(dim=1)
        return scores_BTN


def offset_of(offset: KeyOffset) -> int | Tensor:
    """Return the index of the first token in view, of a state that keeps tokens in order."""
    assert isinstance(offset, (int, Tensor))
    return offset


def gathered(x_BSD: Tensor, columns_BNM: Tensor) -> Tensor:
    """Return the vectors of these tokens in view, (B, N, M, D); of one that is not in view, any."""
    rows_B11 = torch.arange(x_BSD.shape[0], device=x_BSD.device)[:, None, None]
    return x_BSD[rows_B11, columns_BNM.clamp(0, x_BSD.shape[1] - 1)]
