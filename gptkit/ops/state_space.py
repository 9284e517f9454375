"""State-space duality: a recurrence with a scalar decay, computed in chunks of tokens.

    S ← exp(g) · S + v kᵀ;  out = S q

Within a chunk, the recurrence equals attention without a softmax, with scores q·k that are multiplied by the decay between
the two tokens. Only the state is passed from chunk to chunk (arXiv 2405.21060).

Shapes: B batch, T tokens, H heads, G groups of R heads with the same keys and queries, N features of these (the size of the
state), P features of values, M chunks, C tokens of a chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["state_space_scan", "state_space_step"]


def state_space_scan(
    q_BTGN: Tensor,
    k_BTGN: Tensor,
    v_BTHP: Tensor,
    g_BTH: Tensor,
    state_BHPN: Tensor,
    *,
    segments_BT: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Compute the outputs of all tokens, (B, T, H, P), and the state after them, both in the inputs' dtype (fp32 or wider).

    Args:
        q_BTGN, k_BTGN: queries and keys of each group.
        v_BTHP: values; head h belongs to group h // R.
        g_BTH: the logarithm of the decay, at most 0.
        state_BHPN: the state before the first token.
        segments_BT: a number that grows by one where the state is reset before a token; None without resets.
        chunk: number of tokens that are computed at once.
    """
    n_batch, n_tokens, n_heads, d_value = v_BTHP.shape
    n_groups, d_state = q_BTGN.shape[2:]
    # One chunk is its own case, in which the number of tokens may be a symbol (a program of torch.export).
    n_chunks, size = (1, n_tokens) if 0 < n_tokens <= chunk else (-(-n_tokens // chunk), chunk)
    fill = n_chunks * size - n_tokens

    def split(x: Tensor) -> Tensor:
        """Reshape (B, T, …) to (B, M, C, …), padded with tokens that do not change the state."""
        if fill:
            x = F.pad(x, (*(0, 0) * (x.dim() - 2), 0, fill))
        return torch.unflatten(x, 1, (n_chunks, size))

    q_BMGNC, k_BMGCN = split(q_BTGN).permute(0, 1, 3, 4, 2), split(k_BTGN).transpose(2, 3)
    v_BMGRPC = torch.unflatten(split(v_BTHP), 3, (n_groups, -1)).permute(0, 1, 3, 4, 5, 2)
    decay_BMGRC = torch.unflatten(split(g_BTH), 3, (n_groups, -1)).permute(0, 1, 3, 4, 2).cumsum(dim=-1)
    # Rows are keys, columns are queries. Masked before exp, which would overflow there.
    later = torch.ones(size, size, dtype=torch.bool, device=v_BTHP.device).tril(-1)
    between = (decay_BMGRC[..., None, :] - decay_BMGRC[..., :, None]).masked_fill(later, float("-inf")).exp()
    since_start, to_end = decay_BMGRC.exp(), (decay_BMGRC[..., -1:] - decay_BMGRC).exp()
    whole = decay_BMGRC[..., -1].exp()
    if segments_BT is not None:
        padded_BT = torch.cat((segments_BT, segments_BT[:, -1:].expand(-1, fill)), dim=1)
        segments = padded_BT.reshape(-1, n_chunks, 1, 1, size)
        last = segments[..., -1:]
        before = torch.cat((segments[:, :1, ..., :1], last[:, :-1]), dim=1)
        between = between * (segments[..., None, :] == segments[..., :, None])
        since_start = since_start * (segments == before)
        to_end = to_end * (segments == last)
        whole = whole * (last == before)[..., 0]

    with torch.autocast("cpu" if v_BTHP.is_meta else v_BTHP.device.type, enabled=False):
        near = v_BMGRPC @ ((k_BMGCN @ q_BMGNC)[:, :, :, None] * between)
        stored = ((v_BMGRPC * to_end[..., None, :]).flatten(3, 4) @ k_BMGCN).view(
            n_batch, n_chunks, n_heads, d_value, d_state
        )
        whole_BMH11 = whole.flatten(2)[..., None, None]
        states = []
        for index in range(n_chunks):
            states.append(state_BHPN)
            state_BHPN = state_BHPN * whole_BMH11[:, index] + stored[:, index]
        far = torch.stack(states, dim=1).reshape(n_batch, n_chunks, n_groups, -1, d_state) @ q_BMGNC
        out_BMGRPC = near + far.view_as(near) * since_start[..., None, :]
    return out_BMGRPC.permute(0, 1, 5, 2, 3, 4).reshape(n_batch, -1, n_heads, d_value)[:, :n_tokens], state_BHPN


def state_space_step(q_BGN: Tensor, k_BGN: Tensor, v_BHP: Tensor, g_BH: Tensor, state_BHPN: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `state_space_scan` for one token: its output, (B, H, P), and the state after it, (B, H, P, N).

    The arguments are those of `state_space_scan` without the dimension of tokens.
    """
    repeats = v_BHP.shape[1] // q_BGN.shape[1]
    q_BHN, k_BHN = q_BGN.repeat_interleave(repeats, dim=1), k_BGN.repeat_interleave(repeats, dim=1)
    state_BHPN = state_BHPN * g_BH.exp()[..., None, None] + v_BHP[..., None] * k_BHN[..., None, :]
    return (state_BHPN * q_BHN[..., None, :]).sum(dim=-1), state_BHPN
