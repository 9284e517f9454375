"""Linear attention with a constant decay per head, computed in chunks of tokens.

    S ← exp(−slope) · S + k vᵀ;  out = Sᵀ q

Within a chunk, the recurrence equals attention without a softmax, with scores q·k that are multiplied by the decay between
the two tokens. Only the state is passed from chunk to chunk (arXiv 2401.04658). Since the decays do not depend on the
tokens, their tables are the same for all rows and chunks.

Shapes: B batch, T tokens, H heads, K features of queries and keys, V features of values, M chunks, C tokens of a chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["decayed_attention", "decayed_attention_step"]


def decayed_attention(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    slopes_H: Tensor,
    state_BHKV: Tensor,
    *,
    segments_BT: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Compute the outputs of all tokens, (B, T, H, V), and the state after them, both in the inputs' dtype (fp32 or wider).

    Args:
        q_BTHK, k_BTHK, v_BTHV: queries, keys and values.
        slopes_H: the negative logarithm of each head's decay, at least 0.
        state_BHKV: the state before the first token.
        segments_BT: a number that grows by one where the state is reset before a token; None without resets.
        chunk: number of tokens that are computed at once.
    """
    n_batch, n_tokens, n_heads, d_value = v_BTHV.shape
    # One chunk is its own case, in which the number of tokens may be a symbol (a program of torch.export).
    n_chunks, size = (1, n_tokens) if 0 < n_tokens <= chunk else (-(-n_tokens // chunk), chunk)
    fill = n_chunks * size - n_tokens

    def split(x_BTHD: Tensor) -> Tensor:
        """Reshape (B, T, H, D) to (B, H, M, C, D), padded with zeros, which add nothing to the state."""
        if fill:
            x_BTHD = F.pad(x_BTHD, (0, 0, 0, 0, 0, fill))
        return torch.unflatten(x_BTHD, 1, (n_chunks, size)).permute(0, 3, 1, 2, 4)

    q_BHMCK, k_BHMCK, v_BHMCV = split(q_BTHK), split(k_BTHK), split(v_BTHV)
    slopes_H11 = slopes_H[:, None, None]
    index_C = torch.arange(size, device=v_BTHV.device)
    back_CC = index_C[:, None] - index_C
    # Rows are queries, columns are keys. Masked before exp, which would overflow there.
    between = (-slopes_H11 * back_CC).masked_fill(back_CC < 0, float("-inf")).exp()[:, None]
    since_start = (-slopes_H11 * (index_C + 1)).exp()
    # The last chunk may be shorter; its state decays by the tokens that it has.
    size_11 = index_C[-1:, None] + 1
    n_real_M1 = torch.cat((*[size_11] * (n_chunks - 1), size_11 - fill))
    to_end = (-slopes_H11 * (n_real_M1 - 1 - index_C).clamp(min=0)).exp()
    whole = (-slopes_H11 * n_real_M1).exp()[..., 0]
    if segments_BT is not None:
        padded_BT = torch.cat((segments_BT, segments_BT[:, -1:].expand(-1, fill)), dim=1)
        segments = padded_BT.reshape(-1, 1, n_chunks, size)
        last = segments[..., -1:]
        before = torch.cat((segments[:, :, :1, :1], last[:, :, :-1]), dim=2)
        between = between * (segments[..., :, None] == segments[..., None, :])
        since_start = since_start * (segments == before)
        to_end = to_end * (segments == last)
        whole = whole * (last == before)[..., 0]

    with torch.autocast("cpu" if v_BTHV.is_meta else v_BTHV.device.type, enabled=False):
        near = ((q_BHMCK @ k_BHMCK.mT) * between) @ v_BHMCV
        stored_BHMKV = (k_BHMCK * to_end[..., None]).mT @ v_BHMCV
        states = []
        for index in range(n_chunks):
            states.append(state_BHKV)
            state_BHKV = state_BHKV * whole[..., index, None, None] + stored_BHMKV[:, :, index]
        far = (q_BHMCK * since_start[..., None]) @ torch.stack(states, dim=2)
    out_BHMCV = near + far
    return out_BHMCV.permute(0, 2, 3, 1, 4).reshape(n_batch, -1, n_heads, d_value)[:, :n_tokens], state_BHKV


def decayed_attention_step(
    q_BHK: Tensor, k_BHK: Tensor, v_BHV: Tensor, slopes_H: Tensor, state_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute `decayed_attention` for one token: its output, (B, H, V), and the state after it, (B, H, K, V).

    The arguments are those of `decayed_attention` without the dimension of tokens.
    """
    decay_H11 = (-slopes_H).exp()[:, None, None]
    state_BHKV = state_BHKV * decay_H11 + k_BHK[..., None] * v_BHV[..., None, :]
    return (state_BHKV * q_BHK[..., None]).sum(dim=-2), state_BHKV
