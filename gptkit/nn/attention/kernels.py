"""Softmax attention over given queries, keys and values: the fused way and the spelled-out way.

Both compute ``softmax(scale · q kᵀ + bias + mask) v`` and agree; a caller chooses one when it is assembled.

Shapes: B batch, H query heads, K key/value heads (H a multiple of K), T queries, S keys, D head size.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gptkit.nn.attention.mask import AttentionMask

__all__ = ["additive", "explicit", "fused"]


def additive(mask: AttentionMask, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Mask and bias as one term for the scores, -inf where nothing may be attended: (1 or B, 1 or H, T, S)."""
    if bias is None:
        return mask.additive(dtype)
    return bias.to(dtype).masked_fill(~mask.dense(), float("-inf"))


def fused(
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    *,
    scale: float,
    causal: bool = False,
    term: Tensor | None = None,
    sinks_H: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """One call of torch's scaled_dot_product_attention.

    Args:
        scale: factor of the dot products.
        causal: mask the upper triangle (T = S); then `term` is None.
        term: what is added to the scores, from `additive`; None for nothing.
        sinks_H: a logit for each head that takes its share of the softmax and gives nothing (attention sinks).
        dropout: probability with which a weight is dropped.

    Returns:
        (B, H, T, D).
    """
    n_batch, n_heads, n_queries, d_head = q_BHTD.shape
    n_kv_heads, n_keys = k_BKSD.shape[1], k_BKSD.shape[2]
    if sinks_H is not None:
        # A key of zeros whose score is the sink's logit and whose value is zero is just such a sink.
        if causal or term is None:
            form: Literal["causal", "none"] = "causal" if causal else "none"
            term = AttentionMask(form, n_queries, n_keys, q_BHTD.device).additive(q_BHTD.dtype)
        column = sinks_H.to(term.dtype).view(1, -1, 1, 1).expand(term.shape[0], -1, n_queries, 1)
        term = torch.cat((column, term.expand(-1, n_heads, -1, -1)), dim=-1)
        k_BKSD, v_BKSD = F.pad(k_BKSD, (0, 0, 1, 0)), F.pad(v_BKSD, (0, 0, 1, 0))
        causal = False
    grouped = n_heads != n_kv_heads
    if grouped and n_queries == 1 and term is None:
        # The heads of a group are so many queries on the same keys: nothing needs to be repeated.
        q_BKGD = q_BHTD.reshape(n_batch, n_kv_heads, n_heads // n_kv_heads, d_head)
        out = F.scaled_dot_product_attention(q_BKGD, k_BKSD, v_BKSD, dropout_p=dropout, scale=scale)
        return out.reshape(n_batch, n_heads, 1, v_BKSD.shape[-1])
    return F.scaled_dot_product_attention(
        q_BHTD, k_BKSD, v_BKSD, attn_mask=term, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=grouped
    )


def explicit(
    q_BHTD: Tensor,
    k_BKSD: Tensor,
    v_BKSD: Tensor,
    *,
    scale: float,
    term: Tensor,
    softcap: float | None = None,
    sinks_H: Tensor | None = None,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The same, step by step, for what fused attention cannot do: softcaps, and giving the weights away.

    Args:
        term: from `additive`, in the dtype that the softmax is to be computed in.
        softcap: scores become ``softcap · tanh(score / softcap)`` before bias and mask.

    Returns:
        (B, H, T, D), and the weights (B, H, T, S) after dropout.
    """
    repeats = q_BHTD.shape[1] // k_BKSD.shape[1]
    if repeats > 1:
        k_BKSD, v_BKSD = k_BKSD.repeat_interleave(repeats, 1), v_BKSD.repeat_interleave(repeats, 1)
    scores_BHTS = (q_BHTD @ k_BKSD.transpose(-2, -1)) * scale
    if softcap is not None:
        scores_BHTS = softcap * torch.tanh(scores_BHTS / softcap)
    # The softmax is in fp32 at least, whatever the inputs are in.
    scores_BHTS = scores_BHTS.to(term.dtype) + term
    if sinks_H is not None:
        column = sinks_H.to(term.dtype).view(1, -1, 1, 1).expand(scores_BHTS.shape[0], -1, scores_BHTS.shape[2], 1)
        weights_BHTS = torch.softmax(torch.cat((scores_BHTS, column), dim=-1), dim=-1)[..., :-1]
    else:
        weights_BHTS = torch.softmax(scores_BHTS, dim=-1)
    weights_BHTS = F.dropout(weights_BHTS.to(v_BKSD.dtype), dropout, training=dropout > 0)
    return weights_BHTS @ v_BKSD, weights_BHTS
