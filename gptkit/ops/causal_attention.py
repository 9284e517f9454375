"""Causal attention on a CPU by explicit matrix products, for training at short contexts.

torch's fused attention on a CPU computes small tiles, and cannot drop attention weights. Up to about a thousand tokens,
whole products of a few heads are faster: a block of queries at a time, each with the keys up to its end, so that scores stay
in the cache and most of the masked half is never computed. The attention weights are stored for the backward pass.

Scores, weights and their gradients have the inputs' dtype, as in the explicit definition; softmax and sums over blocks are
computed in fp32.

Shapes: B batch, H query heads, K key/value heads (H a multiple of K), T tokens, D features of queries and keys, V features
of values, N heads of a group of rows, Q queries of a block, S keys up to the end of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gptkit.ops.dropout import DropoutMask

__all__ = ["causal_attention", "n_stored_weights", "suits"]

MAX_TOKENS = 1024
"""Longest context; weights are stored, so memory grows with its square."""

MIN_TOKENS = 32
MIN_BLOCK = 128
GROUP_ELEMENTS = 1 << 19
"""Approximate number of scores that are computed at once."""


def suits(q_BHTD: Tensor, k_BKTD: Tensor, v_BKTV: Tensor) -> bool:
    """Return whether `causal_attention` can train on these tensors and is faster than fused attention."""
    return (
        q_BHTD.device.type == "cpu"
        and MIN_TOKENS <= q_BHTD.shape[2] <= MAX_TOKENS
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and all(type(x) is Tensor for x in (q_BHTD, k_BKTD, v_BKTV))
        and (q_BHTD.requires_grad or k_BKTD.requires_grad or v_BKTV.requires_grad)
    )


def causal_attention(q_BHTD: Tensor, k_BKTD: Tensor, v_BKTV: Tensor, *, scale: float, dropout: float = 0.0) -> Tensor:
    """Compute softmax(scale · q kᵀ + causal mask) v, in autocast's dtype where autocast is enabled.

    Args:
        q_BHTD, k_BKTD, v_BKTV: queries, keys and values of the same tokens.
        scale: factor of the dot products.
        dropout: probability of dropping an attention weight, below 1.

    Returns:
        (B, H, T, V), a view of a tensor (B, T, H, V).
    """
    dtype = q_BHTD.dtype
    if torch.is_autocast_enabled("cpu") and dtype != torch.float64:
        dtype = torch.get_autocast_dtype("cpu")
    result: Tensor = _CausalAttention.apply(  # type: ignore[no-untyped-call]
        q_BHTD.to(dtype), k_BKTD.to(dtype), v_BKTV.to(dtype), scale, dropout
    )
    return result


class _Block(NamedTuple):
    """A block of queries of a group of rows: rows first to last, queries start to end, and its part of the weights."""

    first: int
    last: int
    start: int
    end: int
    offset: int

    def shape(self, n_heads: int) -> tuple[int, int, int]:
        return (self.last - self.first) * n_heads, self.end - self.start, self.end


def _size(n_tokens: int) -> int:
    """Return the number of queries of a block."""
    return min(n_tokens, max(MIN_BLOCK, n_tokens // 4))


def _blocks(n_rows: int, n_heads: int, n_tokens: int) -> tuple[list[list[_Block]], int]:
    """Return the blocks of each group of rows, and the number of weights."""
    size = _size(n_tokens)
    n_together = max(1, GROUP_ELEMENTS // (n_heads * size * n_tokens))
    groups, offset = [], 0
    for first in range(0, n_rows, n_together):
        group = []
        for start in range(0, n_tokens, size):
            block = _Block(first, min(first + n_together, n_rows), start, min(start + size, n_tokens), offset)
            offset += math.prod(block.shape(n_heads))
            group.append(block)
        groups.append(group)
    return groups, offset


def n_stored_weights(n_rows: int, n_heads: int, n_tokens: int) -> int:
    """Return the number of attention weights that are kept for the backward pass."""
    return _blocks(n_rows, n_heads, n_tokens)[1]


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTV: Tensor, scale: float, dropout: float) -> Tensor:
        n_rows, n_heads, n_tokens, _ = q_BHTD.shape
        groups, n_weights = _blocks(n_rows, n_heads, n_tokens)
        weights = q_BHTD.new_empty(n_weights)
        out_BTHV = q_BHTD.new_empty(n_rows, n_tokens, n_heads, v_BKTV.shape[-1])
        masks = []
        size = _size(n_tokens)
        mask_QQ = torch.full((size, size), -math.inf, dtype=q_BHTD.dtype).triu(1)
        with torch.autocast("cpu", enabled=False):
            for group in groups:
                k_NTD, v_NTV = (_heads(x, group[0], n_heads) for x in (k_BKTD, v_BKTV))
                if dropout:
                    v_NTV = v_NTV * (1 / (1 - dropout))
                for block in group:
                    shape = block.shape(n_heads)
                    weights_NQS = _part(weights, block, n_heads)
                    q_NQD = _queries(q_BHTD, block)
                    weights_NQS.baddbmm_(q_NQD, _transposed(k_NTD, block), beta=0, alpha=scale)
                    weights_NQS[..., block.start :].add_(mask_QQ[: shape[1], : shape[1]])
                    torch.softmax(weights_NQS, -1, out=weights_NQS)
                    kept_NQS = weights_NQS
                    if dropout:
                        masks.append(DropoutMask(kept_NQS.numel(), dropout, kept_NQS.dtype))
                        kept_NQS = masks[-1].apply_(weights_NQS.clone())
                    _store(out_BTHV, block, torch.bmm(kept_NQS, v_NTV[:, : block.end]))
        ctx.save_for_backward(q_BHTD, k_BKTD, v_BKTV, weights)
        ctx.scale, ctx.dropout, ctx.masks = scale, dropout, masks
        return out_BTHV.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHTV: Tensor) -> tuple[Tensor | None, ...]:
        q_BHTD, k_BKTD, v_BKTV, weights = ctx.saved_tensors
        n_rows, n_heads, n_tokens, _ = q_BHTD.shape
        groups, _ = _blocks(n_rows, n_heads, n_tokens)
        masks: Iterator[DropoutMask] = reversed(ctx.masks)
        exact = torch.promote_types(q_BHTD.dtype, torch.float32)
        # In the memory order that the inputs usually have: (B, T, heads, features).
        grad_q, grad_k, grad_v = (x.new_empty(n_rows, n_tokens, x.shape[1], x.shape[-1]) for x in (q_BHTD, k_BKTD, v_BKTV))
        factor = 1 / (1 - ctx.dropout)
        with torch.autocast("cpu", enabled=False):
            for group in reversed(groups):
                k_NTD, v_NTV = (_heads(x, group[0], n_heads) for x in (k_BKTD, v_BKTV))
                if ctx.dropout:
                    v_NTV = v_NTV * factor
                # The last block has all keys, so its parts are the first terms of the sums.
                sums: tuple[Tensor, Tensor] | None = None
                for block in reversed(group):
                    weights_NQS = kept_NQS = _part(weights, block, n_heads)
                    grad_NQV = _queries(grad_BHTV, block)
                    slope_NQS = torch.bmm(grad_NQV, _transposed(v_NTV, block))
                    if ctx.dropout:
                        kept_NQS = weights_NQS.clone()
                        next(masks).apply_(kept_NQS, slope_NQS)
                    part_v = torch.bmm(kept_NQS.transpose(1, 2), grad_NQV)
                    slope_NQS = torch.ops.aten._softmax_backward_data(slope_NQS, weights_NQS, -1, slope_NQS.dtype)
                    part_k = torch.bmm(slope_NQS.transpose(1, 2), _queries(q_BHTD, block))
                    _store(grad_q, block, torch.bmm(slope_NQS, k_NTD[:, : block.end]).mul_(ctx.scale))
                    if sums is None:
                        single = len(group) == 1
                        sums = (part_k, part_v) if single else (part_k.to(exact), part_v.to(exact))
                    else:
                        sums[0][:, : block.end] += part_k
                        sums[1][:, : block.end] += part_v
                assert sums is not None
                _store_keys(grad_k, group[0], sums[0].mul_(ctx.scale))
                _store_keys(grad_v, group[0], sums[1].mul_(factor) if ctx.dropout else sums[1])
        return grad_q.transpose(1, 2), grad_k.transpose(1, 2), grad_v.transpose(1, 2), None, None


def _part(weights: Tensor, block: _Block, n_heads: int) -> Tensor:
    shape = block.shape(n_heads)
    return weights[block.offset : block.offset + math.prod(shape)].view(shape)


def _transposed(x_NTD: Tensor, block: _Block) -> Tensor:
    """Return the keys or values up to the end of a block, (N, D, S).

    A view of a contiguous copy: oneDNN reads it as it is, where torch would transpose a slice element by element.
    """
    return x_NTD[:, : block.end].contiguous().transpose(1, 2)


def _queries(x_BHTD: Tensor, block: _Block) -> Tensor:
    """Return the block of a tensor of queries, (N, Q, D)."""
    return x_BHTD[block.first : block.last, :, block.start : block.end].flatten(0, 1)


def _heads(x_BKTD: Tensor, block: _Block, n_heads: int) -> Tensor:
    """Return the keys or values of a group of rows for every query head, (N, T, D)."""
    rows = x_BKTD[block.first : block.last]
    repeats = n_heads // rows.shape[1]
    return (rows.repeat_interleave(repeats, 1) if repeats > 1 else rows).flatten(0, 1)


def _store(target_BTHD: Tensor, block: _Block, part_NQD: Tensor) -> None:
    rows = target_BTHD[block.first : block.last, block.start : block.end]
    rows.transpose(1, 2).copy_(part_NQD.view(rows.shape[0], -1, *part_NQD.shape[1:]))


def _store_keys(target_BTKD: Tensor, block: _Block, sum_NTD: Tensor) -> None:
    """Store the gradient of keys or values: the sum over the query heads of each."""
    rows = target_BTKD[block.first : block.last]
    heads = sum_NTD.view(rows.shape[0], rows.shape[2], -1, *sum_NTD.shape[1:])
    rows.transpose(1, 2).copy_(heads.sum(2) if heads.shape[2] > 1 else heads[:, :, 0])
