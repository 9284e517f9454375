"""Linear attention by the gated delta rule: a memory that every token decays, corrects, and reads.

    S ← exp(g) · S;  S ← S + k (b · (v − Sᵀ k))ᵀ;  out = Sᵀ q

Over a chunk of tokens, the corrections depend on each other by a triangular system; solved at once, they turn a chunk
into a few matrix products, and only the memory itself passes from chunk to chunk.

Shapes: B batch, H heads, T tokens, K features of keys and queries, V features of values, N chunks, C tokens of a chunk,
W width of a convolution, F its features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["causal_conv", "gated_delta_rule", "gated_delta_step"]


def gated_delta_rule(
    q_BHTK: Tensor,
    k_BHTK: Tensor,
    v_BHTV: Tensor,
    g_BHT: Tensor,
    b_BHT: Tensor,
    state_BHKV: Tensor,
    *,
    segments_BT: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """What all tokens read, (B, H, T, V), and the memory after them, both in the dtype of the inputs (fp32 or wider).

    Args:
        g_BHT: the logarithm of the decay, at most 0.
        b_BHT: how much of a correction is written, from 0 to 1.
        state_BHKV: the memory before the first token.
        segments_BT: a number that grows by one where the memory is emptied before a token; None for nowhere.
        chunk: tokens that are worked on at once.
    """
    n_tokens = q_BHTK.shape[2]
    size = max(1, min(chunk, n_tokens))
    n_chunks = -(-n_tokens // size)

    def split(x: Tensor) -> Tensor:
        """(B, H, T, …) to (B, H, N, C, …), filled up with tokens that change nothing."""
        fill = n_chunks * size - n_tokens
        if fill:
            x = F.pad(x, (*(0, 0) * (x.dim() - 3), 0, fill))
        return x.reshape(*x.shape[:2], n_chunks, size, *x.shape[3:])

    q, k, v, g, b = (split(x) for x in (q_BHTK, k_BHTK, v_BHTV, g_BHT, b_BHT))
    decay = g.cumsum(dim=-1)
    upper = torch.ones(size, size, dtype=torch.bool, device=g.device).triu(1)
    # Masked before exp, which would overflow there.
    between = (decay[..., :, None] - decay[..., None, :]).masked_fill(upper, float("-inf")).exp()
    since_start, to_end, whole = decay.exp(), (decay[..., -1:] - decay).exp(), decay[..., -1].exp()
    if segments_BT is not None:
        fill = n_chunks * size - n_tokens
        padded_BT = torch.cat((segments_BT, segments_BT[:, -1:].expand(-1, fill)), dim=1)
        segments = padded_BT.reshape(-1, 1, n_chunks, size)
        last = segments[..., -1:]
        before = torch.cat((segments[:, :, :1, :1], last[:, :, :-1]), dim=2)
        between = between * (segments[..., :, None] == segments[..., None, :])
        since_start = since_start * (segments == before)
        to_end = to_end * (segments == last)
        whole = whole * (last == before)[..., 0]

    with torch.autocast("cpu" if q.is_meta else q.device.type, enabled=False):
        k_written = k * b[..., None]
        system = (k_written @ k.transpose(-1, -2)) * between
        known = torch.cat((v * b[..., None], k_written * since_start[..., None]), dim=-1)
        solved = torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True)
        new, recalled = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
        near = (q @ k.transpose(-1, -2)) * between
        far = q * since_start[..., None]
        stored = (k * to_end[..., None]).transpose(-1, -2)
        outs = []
        for n in range(n_chunks):
            written = new[:, :, n] - recalled[:, :, n] @ state_BHKV
            outs.append(far[:, :, n] @ state_BHKV + near[:, :, n] @ written)
            state_BHKV = state_BHKV * whole[:, :, n, None, None] + stored[:, :, n] @ written
    return torch.cat(outs, dim=2)[:, :, :n_tokens], state_BHKV


def gated_delta_step(
    q_BHK: Tensor, k_BHK: Tensor, v_BHV: Tensor, g_BH: Tensor, b_BH: Tensor, state_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """`gated_delta_rule` for one token: what it reads, (B, H, V), and the memory after it."""
    state_BHKV = state_BHKV * g_BH.exp()[..., None, None]
    recalled_BHV = (k_BHK[..., None] * state_BHKV).sum(dim=-2)
    written_BHV = (v_BHV - recalled_BHV) * b_BH[..., None]
    state_BHKV = state_BHKV + k_BHK[..., None] * written_BHV[..., None, :]
    return (q_BHK[..., None] * state_BHKV).sum(dim=-2), state_BHKV


def causal_conv(
    x_BTF: Tensor, weight_F1W: Tensor, tail_BWF: Tensor | None = None, positions_BT: Tensor | None = None
) -> Tensor:
    """Each feature convolved with its own past: Σ_i weight[W − 1 − i] · x[t − i] for i = 0 … W − 1, (B, T, F).

    Args:
        tail_BWF: the W − 1 tokens before the first; None for zeros.
        positions_BT: positions within documents, so that none sees into the one before it; None for one a row.
    """
    width = weight_F1W.shape[-1]
    if tail_BWF is None:
        tail_BWF = x_BTF.new_zeros(x_BTF.shape[0], width - 1, x_BTF.shape[2])
    x_BSF = torch.cat((tail_BWF.to(x_BTF.dtype), x_BTF), dim=1)
    if positions_BT is None:
        return F.conv1d(x_BSF.transpose(1, 2), weight_F1W, groups=weight_F1W.shape[0]).transpose(1, 2)
    out_BTF = torch.zeros_like(x_BTF)
    for back in range(width):
        seen_BTF = x_BSF[:, width - 1 - back : x_BSF.shape[1] - back] * (positions_BT >= back)[..., None]
        out_BTF = out_BTF + seen_BTF * weight_F1W[:, 0, width - 1 - back]
    return out_BTF
