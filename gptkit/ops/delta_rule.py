"""Linear attention by the gated delta rule: a recurrent state that every token decays, corrects, and reads.

    S ← exp(g) · S;  S ← S + k (b · (v − Sᵀ k))ᵀ;  out = Sᵀ q

Within a chunk of tokens, the corrections depend on each other through a triangular system. Solving it reduces a chunk to a
few matrix products, and only the state is passed from chunk to chunk (arXiv 2412.06464).

Shapes: B batch, H heads, T tokens, K features of keys and queries, V features of values, N chunks, C tokens of a chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["gated_delta_rule", "gated_delta_step"]


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
    """Compute the outputs of all tokens, (B, H, T, V), and the state after them, both in the inputs' dtype (fp32 or wider).

    Args:
        q_BHTK, k_BHTK, v_BHTV: queries, keys and values.
        g_BHT: the logarithm of the decay, at most 0.
        b_BHT: the write strength: the share of a correction that is added to the state, from 0 to 1.
        state_BHKV: the state before the first token.
        segments_BT: a number that grows by one where the state is reset before a token; None without resets.
        chunk: number of tokens that are computed at once.
    """
    n_tokens = q_BHTK.shape[2]
    # One chunk is its own case, in which the number of tokens may be a symbol (a program of torch.export).
    n_chunks, size = (1, n_tokens) if 0 < n_tokens <= chunk else (-(-n_tokens // chunk), chunk)

    def split(x: Tensor) -> Tensor:
        """Reshape (B, H, T, …) to (B, H, N, C, …), padded with tokens that do not change the state."""
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
    """Compute `gated_delta_rule` for one token: its output, (B, H, V), and the state after it, (B, H, K, V).

    The arguments are those of `gated_delta_rule` without the dimension of tokens.
    """
    state_BHKV = state_BHKV * g_BH.exp()[..., None, None]
    recalled_BHV = (k_BHK[..., None] * state_BHKV).sum(dim=-2)
    written_BHV = (v_BHV - recalled_BHV) * b_BH[..., None]
    state_BHKV = state_BHKV + k_BHK[..., None] * written_BHV[..., None, :]
    return (q_BHK[..., None] * state_BHKV).sum(dim=-2), state_BHKV
