"""Linear attention by the delta rule with a decay of every key feature: Kimi Delta Attention (KDA).

    S ← diag(exp(g)) · S;  S ← S + k (b · (v − Sᵀ k))ᵀ;  out = Sᵀ q

`gptkit.ops.delta_rule` is the case of one decay per head. Within a chunk of tokens, the corrections depend on each other
through a triangular system, and only the state is passed from chunk to chunk (arXiv 2510.26692).

Shapes: B batch, H heads, T tokens, K features of keys and queries, V features of values, N chunks, C tokens of a chunk,
A tokens of a block within a chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.ops.symbols import varies

__all__ = ["channel_delta_rule", "channel_delta_step"]

BLOCK = 16
"""Tokens whose decays are computed pair by pair."""


def channel_delta_rule(
    q_BHTK: Tensor,
    k_BHTK: Tensor,
    v_BHTV: Tensor,
    g_BHTK: Tensor,
    b_BHT: Tensor,
    state_BHKV: Tensor,
    *,
    segments_BT: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Compute the outputs of all tokens, (B, H, T, V), and the state after them, both in the inputs' dtype (fp32 or wider).

    Args:
        q_BHTK, k_BHTK, v_BHTV: queries, keys and values.
        g_BHTK: the logarithm of the decay of each key feature, at most 0.
        b_BHT: the write strength: the share of a correction that is added to the state.
        state_BHKV: the state before the first token.
        segments_BT: a number that grows by one where the state is reset before a token; None without resets.
        chunk: number of tokens that are computed at once.
    """
    n_tokens = q_BHTK.shape[2]
    if varies(n_tokens) and n_tokens <= chunk:  # a program, in which the number of chunks is fixed
        n_chunks, size = 1, n_tokens
    else:
        size = max(1, min(chunk, n_tokens))
        n_chunks = -(-n_tokens // size)
    fill = n_chunks * size - n_tokens

    def split(x: Tensor) -> Tensor:
        """Reshape (B, H, T, …) to (B, H, N, C, …), padded with tokens that do not change the state."""
        if fill:
            x = F.pad(x, (*(0, 0) * (x.dim() - 3), 0, fill))
        return x.reshape(*x.shape[:2], n_chunks, size, *x.shape[3:])

    q, k, v, g, b = (split(x) for x in (q_BHTK, k_BHTK, v_BHTV, g_BHTK, b_BHT))
    decay = g.cumsum(dim=-2)
    since_start, to_end, whole = decay.exp(), (decay[..., -1:, :] - decay).exp(), decay[..., -1, :].exp()
    same = None
    if segments_BT is not None:
        padded_BT = torch.cat((segments_BT, segments_BT[:, -1:].expand(-1, fill)), dim=1)
        segments = padded_BT.reshape(-1, 1, n_chunks, size)
        last = segments[..., -1:]
        before = torch.cat((segments[:, :, :1, :1], last[:, :, :-1]), dim=2)
        same = segments[..., :, None] == segments[..., None, :]
        since_start = since_start * (segments == before)[..., None]
        to_end = to_end * (segments == last)[..., None]
        whole = whole * (last == before)

    with torch.autocast("cpu" if q.is_meta else q.device.type, enabled=False):
        k_written = k * b[..., None]
        system, near = _decayed_products(k_written, k, decay), _decayed_products(q, k, decay)
        if same is not None:
            system, near = system * same, near * same
        known = torch.cat((v * b[..., None], k_written * since_start), dim=-1)
        solved = torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True)
        new, recalled = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
        far, stored = q * since_start, (k * to_end).transpose(-1, -2)
        outs = []
        for n in range(n_chunks):
            written = new[:, :, n] - recalled[:, :, n] @ state_BHKV
            outs.append(far[:, :, n] @ state_BHKV + near[:, :, n] @ written)
            state_BHKV = state_BHKV * whole[:, :, n, :, None] + stored[:, :, n] @ written
    return torch.cat(outs, dim=2)[:, :, :n_tokens], state_BHKV


def _decayed_products(rows: Tensor, columns: Tensor, decay: Tensor) -> Tensor:
    """Compute Σ_k rows[i, k] · columns[j, k] · exp(decay[i, k] − decay[j, k]) for j ≤ i, else 0, (…, C, C).

    Both exponents are relative to the first token of the row's block, so none is above 0, and none can overflow. Pairs
    within a block are computed one by one.
    """
    size = rows.shape[-2]
    # A size that varies is one block.
    bounds = [(0, size)] if varies(size) else [(first, min(first + BLOCK, size)) for first in range(0, size, BLOCK)]
    parts = []
    for first, last in bounds:
        at = decay[..., first:last, :]
        later = torch.ones(last - first, last - first, dtype=torch.bool, device=rows.device).triu(1)
        # Masked before exp, which would overflow there.
        between = (at[..., :, None, :] - at[..., None, :, :]).masked_fill(later[..., None], float("-inf")).exp()
        pairs = rows[..., first:last, None, :] * columns[..., None, first:last, :]
        block = [(pairs * between).sum(dim=-1)]
        if first:
            start = decay[..., first : first + 1, :]
            earlier = columns[..., :first, :] * (start - decay[..., :first, :]).exp()
            block.insert(0, (rows[..., first:last, :] * (at - start).exp()) @ earlier.transpose(-1, -2))
        parts.append(F.pad(torch.cat(block, dim=-1), (0, size - last)))
    return torch.cat(parts, dim=-2)


def channel_delta_step(
    q_BHK: Tensor, k_BHK: Tensor, v_BHV: Tensor, g_BHK: Tensor, b_BH: Tensor, state_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute `channel_delta_rule` for one token: its output, (B, H, V), and the state after it, (B, H, K, V).

    The arguments are those of `channel_delta_rule` without the dimension of tokens.
    """
    state_BHKV = state_BHKV * g_BHK.exp()[..., None]
    recalled_BHV = (k_BHK[..., None] * state_BHKV).sum(dim=-2)
    written_BHV = (v_BHV - recalled_BHV) * b_BH[..., None]
    state_BHKV = state_BHKV + k_BHK[..., None] * written_BHV[..., None, :]
    return (q_BHK[..., None] * state_BHKV).sum(dim=-2), state_BHKV
