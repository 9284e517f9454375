"""Selective scan: a recurrence with a decay for each pair of a value feature and a state feature (Mamba).

    S ← exp(Δ A) ⊙ S + (Δ v) kᵀ;  y = S q

Shapes: B batch, T tokens, H heads, X features of the values of a head, N features of keys and queries (the size of the
state per value feature), S tokens of a span.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gptkit.ops.linear_recurrence import linear_recurrence
from gptkit.ops.symbols import varies

__all__ = ["selective_scan"]


def selective_scan(
    v_BTHX: Tensor,
    step_BTHX: Tensor,
    rates_HXN: Tensor,
    k_BTHN: Tensor,
    q_BTHN: Tensor,
    state_BHXN: Tensor,
    *,
    resets_BT: Tensor | None = None,
    span: int = 256,
) -> tuple[Tensor, Tensor]:
    """Compute the outputs of all tokens, (B, T, H, X), and the state after them, both in the inputs' dtype (fp32 or wider).

    Args:
        v_BTHX: values.
        step_BTHX: step sizes Δ, at least 0.
        rates_HXN: A, at most 0.
        k_BTHN, q_BTHN: keys and queries, the same for all value features of a head.
        state_BHXN: the state before the first token.
        resets_BT: whether the state is reset to zero before a token; None without resets.
        span: number of tokens whose states are held at once; training holds all of them for the backward pass.
    """
    n_tokens = v_BTHX.shape[1]
    spans = [slice(0, None)] if varies(n_tokens) else [slice(at, at + span) for at in range(0, n_tokens, span)]
    outputs = []
    for part in spans:
        step_BSHX, k_BSHN, q_BSHN = step_BTHX[:, part], k_BTHN[:, part], q_BTHN[:, part]
        decay_BSHXN = (step_BSHX[..., None] * rates_HXN).exp()
        if resets_BT is not None:
            decay_BSHXN = decay_BSHXN.masked_fill(resets_BT[:, part, None, None, None], 0)
        written_BSHXN = (step_BSHX * v_BTHX[:, part])[..., None] * k_BSHN[..., None, :]
        states_BSHXN = linear_recurrence(decay_BSHXN, written_BSHXN, state_BHXN)
        with torch.autocast("cpu" if v_BTHX.is_meta else v_BTHX.device.type, enabled=False):
            outputs.append((states_BSHXN @ q_BSHN[..., None])[..., 0])
        # A view would keep the states of all tokens in memory.
        state_BHXN = states_BSHXN[:, -1].clone()
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)), state_BHXN
