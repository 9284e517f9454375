"""Scores of experts, their selection by groups or by a hash, and the auxiliary losses of routers.

Shapes: N tokens, X experts, K experts chosen for a token, G groups of experts.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ExpertScore", "balance_loss", "expert_scores", "hashed_experts", "limit_to_groups", "z_loss"]

ExpertScore = Literal["sqrt-softplus", "sigmoid", "softmax"]
"""The functions of a router's logits."""

_PRIME, _FACTOR, _ADDED = 2**31 - 1, 1103515245, 69621


def expert_scores(logits_NX: Tensor, score: ExpertScore) -> Tensor:
    """Return positive scores, (N, X): √softplus or sigmoid of each logit, or the softmax over all."""
    if score == "softmax":
        return logits_NX.softmax(dim=-1)
    return logits_NX.sigmoid() if score == "sigmoid" else F.softplus(logits_NX).sqrt()


def hashed_experts(ids_N: Tensor, n_experts: int, k: int, seed: int) -> Tensor:
    """Return k distinct experts of each token id, (N, K), the same on every device: those with the largest hashes.

    Args:
        ids_N: token ids.
        n_experts: X.
        k: K.
        seed: a number that changes the choice, such as the layer's.
    """
    experts_X = torch.arange(n_experts, device=ids_N.device)
    hashed_NX = ids_N.long()[:, None] * n_experts + experts_X + seed * _FACTOR
    for _ in range(3):  # products are below 2^62
        hashed_NX = (hashed_NX % _PRIME * _FACTOR + _ADDED) % _PRIME
        hashed_NX = hashed_NX * hashed_NX % _PRIME
    return (hashed_NX * n_experts + experts_X).topk(k, dim=-1).indices  # distinct, so that the order is one


def limit_to_groups(scores_NX: Tensor, n_groups: int, top_groups: int, score: Literal["max", "top-2-sum"]) -> Tensor:
    """Return the scores with -inf for experts outside the best groups; consecutive experts form a group.

    Args:
        scores_NX: the scores.
        n_groups: G, a divisor of X.
        top_groups: how many groups remain for each token.
        score: the score of a group: that of its best expert, or the sum of its two best.
    """
    grouped_NGX = scores_NX.view(scores_NX.shape[0], n_groups, -1)
    group_NG = grouped_NGX.amax(-1) if score == "max" else grouped_NGX.topk(2, dim=-1).values.sum(-1)
    kept_NG = torch.zeros_like(group_NG, dtype=torch.bool).scatter(1, group_NG.topk(top_groups, dim=-1).indices, True)
    return grouped_NGX.masked_fill(~kept_NG[..., None], float("-inf")).flatten(1)


def balance_loss(shares_NX: Tensor, experts_NK: Tensor, valid_N: Tensor | None) -> Tensor:
    """Compute X · Σ_x (rows of x per token) · (mean share of x): K if the load is even, more otherwise (arXiv 2101.03961).

    Args:
        shares_NX: the router's probabilities.
        experts_NK: the chosen experts.
        valid_N: False for padding, which is not counted; None without padding.
    """
    n_experts = shares_NX.shape[1]
    real_N = torch.ones_like(shares_NX[:, 0]) if valid_N is None else valid_N.to(shares_NX.dtype)
    n_real = real_N.sum().clamp_min(1)
    visits_X = torch.zeros_like(shares_NX[0]).scatter_add(
        0, experts_NK.flatten(), real_N.repeat_interleave(experts_NK.shape[1])
    )
    share_X = real_N @ shares_NX
    return n_experts * (visits_X / n_real * share_X / n_real).sum()


def z_loss(logits_NX: Tensor, valid_N: Tensor | None) -> Tensor:
    """Compute the mean of log(Σ_x exp(logit_x))², which keeps logits small enough for exp to be precise (arXiv 2202.08906).

    Args:
        logits_NX: the router's logits.
        valid_N: False for padding, which is not counted; None without padding.
    """
    squared_N = logits_NX.logsumexp(dim=-1).square()
    if valid_N is None:
        return squared_N.mean()
    return (squared_N * valid_N).sum() / valid_N.sum().clamp_min(1)
