"""Averages of values with exponential weights that decay from token to token (WKV of RWKV-4).

    y_t = (Σ_{s<t} exp(k_s − (t−1−s) r) v_s + exp(u + k_t) v_t) / (the same sum of weights)

The sums are recurrences: a ← exp(−r) a + exp(k) v, b ← exp(−r) b + exp(k). Keys of any size are possible because both are
stored divided by exp(m), where m ← max(m − r, k) is the largest exponent so far. m cancels out, so it has no gradient.

Shapes: B batch, T tokens, X features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptkit.ops.linear_recurrence import linear_recurrence, maximum_recurrence

__all__ = ["WkvState", "wkv"]

WkvState = tuple[Tensor, Tensor, Tensor]
"""a and b, both divided by exp(m), and m, each (B, X). All zeros is the state before any token."""

_LOWEST = -1e30
"""The exponent of an empty state: finite, so that differences of such exponents are numbers."""


def wkv(
    k_BTX: Tensor,
    v_BTX: Tensor,
    rate_X: Tensor,
    bonus_X: Tensor,
    state: WkvState,
    *,
    padding_BT1: Tensor | None = None,
    resets_BT: Tensor | None = None,
) -> tuple[Tensor, WkvState]:
    """Compute the outputs of all tokens, (B, T, X), and the state after them, in the inputs' dtype (fp32 or wider).

    Args:
        k_BTX: keys, the logarithms of the weights.
        v_BTX: values.
        rate_X: r, by which the logarithm of a weight decreases with each token, at least 0.
        bonus_X: u, added to the key of the current token.
        state: the state before the first token.
        padding_BT1: whether a token is not stored; None if all are. Its output is its own value.
        resets_BT: whether the state is reset before a token; None without resets.
    """
    a_BX, b_BX, m_BX = state
    m_BX = m_BX.masked_fill(b_BX == 0, _LOWEST)
    stored_BTX = k_BTX if padding_BT1 is None else k_BTX.masked_fill(padding_BT1, float("-inf"))
    change_BTX = (-rate_X).expand_as(k_BTX)
    if resets_BT is not None:
        change_BTX = change_BTX.masked_fill(resets_BT[..., None], _LOWEST)
    after_BTX = maximum_recurrence(change_BTX, stored_BTX, m_BX)
    before_BTX = torch.cat((m_BX[:, None], after_BTX), dim=1)[:, :-1]
    if resets_BT is not None:
        before_BTX = before_BTX.masked_fill(resets_BT[..., None], _LOWEST)

    decay_BTX = (before_BTX + change_BTX - after_BTX).exp()
    weight_BTX = (stored_BTX - after_BTX).exp()
    added_BTUX = torch.stack((weight_BTX * v_BTX, weight_BTX), dim=2)
    first_BUX = torch.stack((a_BX, b_BX), dim=1)
    sums_BTUX = linear_recurrence(decay_BTX[:, :, None], added_BTUX, first_BUX)

    earlier_BTUX = torch.cat((first_BUX[:, None], sums_BTUX), dim=1)[:, :-1]
    own_BTX = k_BTX + bonus_X
    most_BTX = torch.maximum(before_BTX, own_BTX.detach())
    old_BTX, new_BTX = (before_BTX - most_BTX).exp(), (own_BTX - most_BTX).exp()
    out_BTX = (old_BTX * earlier_BTUX[:, :, 0] + new_BTX * v_BTX) / (old_BTX * earlier_BTUX[:, :, 1] + new_BTX)
    # Views would keep the tensors of all tokens in memory.
    return out_BTX, (sums_BTUX[:, -1, 0].clone(), sums_BTUX[:, -1, 1].clone(), after_BTX[:, -1].clone())
