"""Linear attention whose state has a transition matrix of a diagonal plus a matrix of rank one, as in RWKV-7.

    S_t = diag(exp(g_t)) S_{t−1} + b_t (a_tᵀ S_{t−1}) + k_t v_tᵀ;  out_t = S_tᵀ r_t

Within a chunk of tokens, what the tokens read, u_t = S_{t−1}ᵀ a_t, depends on what earlier ones wrote, through a triangular
system. Solving it reduces a chunk to a few matrix products, and only the state is passed from chunk to chunk
(arXiv 2412.06464, 2503.14456).

Decays within a chunk are products of two factors, exp(g_1 + … + g_i) and the inverse for j, relative to the middle of the
chunk. Neither leaves the range of fp32 as long as Σ |g| over half a chunk is below 80: with |g| ≤ 0.61, as in RWKV-7, it is
below 20 for chunks of 64 tokens.

Shapes: B batch, H heads, T tokens, K features of keys, V features of values, N chunks, C tokens of a chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["transition_rule", "transition_step"]


def transition_rule(
    r_BHTK: Tensor,
    g_BHTK: Tensor,
    k_BHTK: Tensor,
    v_BHTV: Tensor,
    a_BHTK: Tensor,
    b_BHTK: Tensor,
    state_BHKV: Tensor,
    *,
    segments_BT: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Compute the outputs of all tokens, (B, H, T, V), and the state after them, both in the inputs' dtype (fp32 or wider).

    Args:
        r_BHTK: what the outputs read (receptance, query).
        g_BHTK: the logarithm of the decay of each feature, from −0.61 to 0.
        k_BHTK, v_BHTV: keys and values.
        a_BHTK, b_BHTK: what is read from the state before the token, and where it is written to.
        state_BHKV: the state before the first token.
        segments_BT: a number that grows by one where the state is reset before a token; None without resets.
        chunk: number of tokens that are computed at once.
    """
    n_tokens = r_BHTK.shape[2]
    size = max(1, min(chunk, n_tokens))
    n_chunks = -(-n_tokens // size)
    fill = n_chunks * size - n_tokens

    def split(x: Tensor) -> Tensor:
        """Reshape (B, H, T, …) to (B, H, N, C, …), padded with tokens that do not change the state."""
        if fill:
            x = F.pad(x, (0, 0, 0, fill))
        return x.reshape(*x.shape[:2], n_chunks, size, x.shape[3])

    r, g, k, v, a, b = (split(x) for x in (r_BHTK, g_BHTK, k_BHTK, v_BHTV, a_BHTK, b_BHTK))
    after = g.cumsum(dim=-2)
    before_token = after - g
    middle = after[..., size // 2 : size // 2 + 1, :]
    to_middle = (middle - after).exp()
    lower = torch.ones(size, size, dtype=torch.bool, device=g.device).tril()
    same, strict = lower, lower.tril(-1)
    since_start, to_end, whole = before_token.exp(), (after[..., -1:, :] - after).exp(), after[..., -1, :].exp()
    since_start_read = after.exp()
    if segments_BT is not None:
        padded_BT = torch.cat((segments_BT, segments_BT[:, -1:].expand(-1, fill)), dim=1)
        segments = padded_BT.reshape(-1, 1, n_chunks, size)
        last = segments[..., -1:]
        previous = torch.cat((segments[:, :, :1, :1], last[:, :, :-1]), dim=2)
        pairs = segments[..., :, None] == segments[..., None, :]
        same, strict = same & pairs, strict & pairs
        begins = (segments == previous)[..., None]
        since_start, since_start_read = since_start * begins, since_start_read * begins
        to_end = to_end * (segments == last)[..., None]
        whole = whole * (last == previous)

    with torch.autocast("cpu" if g.is_meta else g.device.type, enabled=False):
        a_middle, r_middle = a * (before_token - middle).exp(), r * (after - middle).exp()
        b_middle, k_middle = (b * to_middle).transpose(-1, -2), (k * to_middle).transpose(-1, -2)
        read_written = (a_middle @ b_middle).masked_fill(~strict, 0)
        read_values = (a_middle @ k_middle).masked_fill(~strict, 0)
        near_written = (r_middle @ b_middle).masked_fill(~same, 0)
        near_values = (r_middle @ k_middle).masked_fill(~same, 0)
        known = torch.cat((read_values @ v, a * since_start), dim=-1)
        solved = torch.linalg.solve_triangular(-read_written, known, upper=False, unitriangular=True)
        new, recalled = solved.split([v.shape[-1], a.shape[-1]], dim=-1)
        near, far = near_values @ v, r * since_start_read
        stored_b, stored_k = (b * to_end).transpose(-1, -2), (k * to_end).transpose(-1, -2)
        outs = []
        for n in range(n_chunks):
            read = new[:, :, n] + recalled[:, :, n] @ state_BHKV
            outs.append(far[:, :, n] @ state_BHKV + near_written[:, :, n] @ read + near[:, :, n])
            added = stored_b[:, :, n] @ read + stored_k[:, :, n] @ v[:, :, n]
            state_BHKV = state_BHKV * whole[:, :, n, :, None] + added
    return torch.cat(outs, dim=2)[:, :, :n_tokens], state_BHKV


def transition_step(
    r_BHK: Tensor, g_BHK: Tensor, k_BHK: Tensor, v_BHV: Tensor, a_BHK: Tensor, b_BHK: Tensor, state_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute `transition_rule` for one token: its output, (B, H, V), and the state after it, (B, H, K, V).

    The arguments are those of `transition_rule` without the dimension of tokens.
    """
    read_BHV = (a_BHK[..., None] * state_BHKV).sum(dim=-2)
    state_BHKV = g_BHK.exp()[..., None] * state_BHKV + b_BHK[..., None] * read_BHV[..., None, :]
    state_BHKV = state_BHKV + k_BHK[..., None] * v_BHV[..., None, :]
    return (r_BHK[..., None] * state_BHKV).sum(dim=-2), state_BHKV
