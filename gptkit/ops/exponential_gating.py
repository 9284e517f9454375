"""Linear attention with exponential input gates, computed in chunks of tokens (mLSTM).

    C ← f C + exp(i) k vᵀ;  n ← f n + exp(i) k;  out = Cᵀ q / max(|n·q|, 1)

Gates of any size are possible because C and n are stored divided by exp(m), where m ← max(log f + m, i) is about the largest
exponent so far. In the output m cancels out, except for the small constant in the denominator, so it has no gradient. Within
a chunk, the recurrence equals attention without a softmax; only the state is passed from chunk to chunk (arXiv 2405.04517).

Shapes: B batch, T tokens, H heads, K features of queries and keys, V features of values, M chunks, C tokens of a chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ExponentialState", "exponential_gating"]

ExponentialState = tuple[Tensor, Tensor, Tensor]
"""C (B, H, K, V) and n (B, H, K), both divided by exp(m), and m (B, H)."""


def exponential_gating(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    i_BTH: Tensor,
    f_BTH: Tensor,
    state: ExponentialState,
    *,
    eps: float,
    segments_BT: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, ExponentialState]:
    """Compute the outputs of all tokens, (B, T, H, V), and the state after them, in the inputs' dtype (fp32 or wider).

    Args:
        q_BTHK, k_BTHK, v_BTHV: queries, keys and values.
        i_BTH: the exponents i of the input gates; −∞ for tokens that are not stored.
        f_BTH: the logarithms of the forget gates, at most 0.
        state: the state before the first token; all zeros at the start of a text.
        eps: added to the denominator.
        segments_BT: a number that grows by one where the state is reset before a token; None without resets.
        chunk: number of tokens that are computed at once.
    """
    n_batch, n_tokens, n_heads, d_value = v_BTHV.shape
    # One chunk is its own case, in which the number of tokens may be a symbol (a program of torch.export).
    n_chunks, size = (1, n_tokens) if 0 < n_tokens <= chunk else (-(-n_tokens // chunk), chunk)
    fill = n_chunks * size - n_tokens

    def split(x: Tensor, value: float = 0.0) -> Tensor:
        """Reshape (B, T, H, …) to (B, H, M, C, …), padded with tokens that do not change the state."""
        if fill:
            x = F.pad(x, (*(0, 0) * (x.dim() - 2), 0, fill), value=value)
        return torch.unflatten(x, 1, (n_chunks, size)).movedim(3, 1)

    q_BHMCK, k_BHMCK, v_BHMCV = split(q_BTHK), split(k_BTHK), split(v_BTHV)
    i_BHMC, f_BHMC = split(i_BTH, float("-inf")), split(f_BTH)
    decay_BHMC = f_BHMC.cumsum(dim=-1)
    later = torch.ones(size, size, dtype=torch.bool, device=v_BTHV.device).triu(1)
    # Rows are queries, columns are keys.
    exponent = (decay_BHMC[..., :, None] - decay_BHMC[..., None, :] + i_BHMC[..., None, :]).masked_fill(later, float("-inf"))
    to_end = decay_BHMC[..., -1:] - decay_BHMC + i_BHMC
    # The sum of log f since the last reset, and whether the state before the chunk is still in view.
    since_BHMC, carried = decay_BHMC, torch.ones_like(decay_BHMC, dtype=torch.bool)
    if segments_BT is not None:
        padded_BT = torch.cat((segments_BT, segments_BT[:, -1:].expand(-1, fill)), dim=1)
        segments = padded_BT.reshape(-1, 1, n_chunks, size)
        last = segments[..., -1:]
        before = torch.cat((segments[:, :, :1, :1], last[:, :, :-1]), dim=2)
        carried = (segments == before).expand_as(decay_BHMC)
        exponent = exponent.masked_fill(segments[..., :, None] != segments[..., None, :], float("-inf"))
        to_end = to_end.masked_fill(segments != last, float("-inf"))
        first = torch.cat((before, segments[..., :-1]), dim=-1) != segments
        # Sums of log f only decrease, so the smallest one at a reset so far is that of the last reset.
        begun = (decay_BHMC - f_BHMC).masked_fill(~first, 0).cummin(dim=-1).values
        since_BHMC = decay_BHMC - begun

    C_BHKV, n_BHK, m_BH = state
    with torch.autocast("cpu" if v_BTHV.is_meta else v_BTHV.device.type, enabled=False):
        within_BHMC, stored_BHM = exponent.detach().amax(dim=-1), to_end.detach().amax(dim=-1)
        Cs, ns, ms = [], [], []
        for index in range(n_chunks):
            Cs.append(C_BHKV)
            ns.append(n_BHK)
            ms.append(m_BH)
            whole_BH, kept = since_BHMC[:, :, index, -1], carried[:, :, index, -1]
            base_BH = whole_BH + m_BH * kept
            m_BH = torch.maximum(base_BH, stored_BHM[:, :, index]).detach()
            scale_BH1 = ((base_BH - m_BH).exp() * kept)[..., None]
            weighted_BHCK = k_BHMCK[:, :, index] * (to_end[:, :, index] - m_BH[..., None]).exp()[..., None]
            C_BHKV = scale_BH1[..., None] * C_BHKV + weighted_BHCK.mT @ v_BHMCV[:, :, index]
            n_BHK = scale_BH1 * n_BHK + weighted_BHCK.sum(dim=-2)
        base_BHMC = since_BHMC + torch.stack(ms, dim=2)[..., None] * carried
        m_BHMC = torch.maximum(base_BHMC, within_BHMC).detach()
        scores = (q_BHMCK @ k_BHMCK.mT) * (exponent - m_BHMC[..., None]).exp()
        far_BHMCK = q_BHMCK * ((base_BHMC - m_BHMC).exp() * carried)[..., None]
        out_BHMCV = scores @ v_BHMCV + far_BHMCK @ torch.stack(Cs, dim=2)
        sum_BHMC = scores.sum(dim=-1) + (far_BHMCK @ torch.stack(ns, dim=2)[..., None])[..., 0]
        out_BHMCV = out_BHMCV / (torch.maximum(sum_BHMC.abs(), (-m_BHMC).exp()) + eps)[..., None]
    out_BTHV = out_BHMCV.permute(0, 2, 3, 1, 4).reshape(n_batch, -1, n_heads, d_value)[:, :n_tokens]
    return out_BTHV, (C_BHKV, n_BHK, m_BH)
