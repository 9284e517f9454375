"""Tokens to experts and back, and what keeps routers balanced.

Shapes: N tokens, E model width, X experts, K experts chosen for a token, M = N · K visits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

__all__ = ["balance_loss", "limit_to_groups", "run_experts", "z_loss"]


def run_experts(
    x_NE: Tensor,
    experts_NK: Tensor,
    weights_NK: Tensor,
    n_experts: int,
    run: Callable[[int, Tensor], Tensor],
    *,
    weigh: Literal["output", "input"] = "output",
) -> Tensor:
    """Give every token to its experts and add up what they return, (N, E).

    Tokens are sorted by expert, so each expert runs at most once, on a slice; none is dropped. Every visit has its own
    place to come back to, so the sum over a token's experts is taken in the same order each time, on any device.

    Args:
        run: the output (n, E) of expert i for its tokens (n, E); called for experts that have any.
        weigh: apply the weights to what experts return, or to what they are given.
    """
    n_tokens, n_chosen = experts_NK.shape
    if n_tokens == 0:
        return x_NE
    expert_M = experts_NK.flatten()
    order_M = expert_M.argsort(stable=True)
    if x_NE.is_meta:
        # Nobody knows who goes where: an even spread, which takes as much arithmetic and memory.
        counts = [(n_tokens * n_chosen + n_experts - 1 - i) // n_experts for i in range(n_experts)]
    else:
        counts = torch.bincount(expert_M, minlength=n_experts).tolist()
    given_NKE = x_NE[:, None].expand(-1, n_chosen, -1)
    if weigh == "input":
        given_NKE = given_NKE * weights_NK[..., None]
    given_ME = given_NKE.flatten(0, 1)[order_M]
    pieces = [run(i, piece) for i, piece in enumerate(torch.split(given_ME, counts)) if piece.shape[0]]
    back_M = torch.empty_like(order_M).scatter_(0, order_M, torch.arange(len(order_M), device=order_M.device))
    out_NKE = torch.cat(pieces)[back_M].view(n_tokens, n_chosen, -1)
    if weigh == "output":
        out_NKE = out_NKE * weights_NK[..., None]
    return out_NKE.sum(dim=1).to(x_NE.dtype)


def limit_to_groups(scores_NX: Tensor, n_groups: int, top_groups: int, score: Literal["max", "top-2-sum"]) -> Tensor:
    """The scores with -inf for experts outside the best groups; groups are experts next to each other.

    Args:
        score: what a group is judged by: its best expert, or its two best together.
    """
    grouped_NGX = scores_NX.view(len(scores_NX), n_groups, -1)
    group_NG = grouped_NGX.amax(-1) if score == "max" else grouped_NGX.topk(2, dim=-1).values.sum(-1)
    kept_NG = torch.zeros_like(group_NG, dtype=torch.bool).scatter(1, group_NG.topk(top_groups, dim=-1).indices, True)
    return grouped_NGX.masked_fill(~kept_NG[..., None], float("-inf")).flatten(1)


def balance_loss(shares_NX: Tensor, experts_NK: Tensor, valid_N: Tensor | None) -> Tensor:
    """X · Σ_x (visits to x per token) · (mean share of x): K where the load is even, more where it is not."""
    n_experts = shares_NX.shape[1]
    real_N = torch.ones_like(shares_NX[:, 0]) if valid_N is None else valid_N.to(shares_NX.dtype)
    n_real = real_N.sum().clamp_min(1)
    visits_X = torch.zeros_like(shares_NX[0]).scatter_add(
        0, experts_NK.flatten(), real_N.repeat_interleave(experts_NK.shape[1])
    )
    share_X = real_N @ shares_NX
    return n_experts * (visits_X / n_real * share_X / n_real).sum()


def z_loss(logits_NX: Tensor, valid_N: Tensor | None) -> Tensor:
    """The mean of log(Σ_x exp(logit_x))²: keeps logits from drifting off to where exp is coarse."""
    squared_N = logits_NX.logsumexp(dim=-1).square()
    if valid_N is None:
        return squared_N.mean()
    return (squared_N * valid_N).sum() / valid_N.sum().clamp_min(1)
