"""Selective scan: a recurrence with a decay for each pair of a value feature and a state feature (Mamba).

    S ← exp(Δ A) ⊙ S + (Δ v) kᵀ;  y = S q

Shapes: B batch, T tokens, X features of values, N features of keys and queries (the size of the state per value feature).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptkit.ops.linear_recurrence import linear_recurrence
from gptkit.ops.symbols import varies

__all__ = ["selective_scan"]


def selective_scan(
    v_BTX: Tensor,
    step_BTX: Tensor,
    rates_XN: Tensor,
    k_BTN: Tensor,
    q_BTN: Tensor,
    state_BXN: Tensor,
    *,
    resets_BT: Tensor | None = None,
    span: int = 256,
) -> tuple[Tensor, Tensor]:
    """Compute the outputs of all tokens, (B, T, X), and the state after them, both in the inputs' dtype (fp32 or wider).

    Args:
        v_BTX: values.
        step_BTX: step sizes Δ, at least 0.
        rates_XN: A, at most 0.
        k_BTN, q_BTN: keys and queries, the same for all value features.
        state_BXN: the state before the first token.
        resets_BT: whether the state is reset to zero before a token; None without resets.
        span: number of tokens whose states are held at once; training holds all of them for the backward pass.
    """
    n_tokens = v_BTX.shape[1]
    spans = [slice(0, None)] if varies(n_tokens) else [slice(at, at + span) for at in range(0, n_tokens, span)]
    outputs = []
    for part in spans:
        step_BSX, k_BSN, q_BSN = step_BTX[:, part], k_BTN[:, part], q_BTN[:, part]
        decay_BSXN = (step_BSX[..., None] * rates_XN).exp()
        if resets_BT is not None:
            decay_BSXN = decay_BSXN.masked_fill(resets_BT[:, part, None, None], 0)
        written_BSXN = (step_BSX * v_BTX[:, part])[..., None] * k_BSN[:, :, None]
        states_BSXN = linear_recurrence(decay_BSXN, written_BSXN, state_BXN)
        with torch.autocast("cpu" if v_BTX.is_meta else v_BTX.device.type, enabled=False):
            outputs.append((states_BSXN @ q_BSN[..., None])[..., 0])
        # A view would keep the states of all tokens in memory.
        state_BXN = states_BSXN[:, -1].clone()
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)), state_BXN
