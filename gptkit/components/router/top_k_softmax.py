"""`top-k-softmax` router.

Shapes: N tokens, E model width, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor

from gptkit.components.router.scored import ScoredRouter, ScoredRouterSpec
from gptkit.kinds.context import BuildContext

__all__ = ["TopKSoftmax", "TopKSoftmaxSpec"]


class TopKSoftmaxSpec(ScoredRouterSpec):
    """Keeps the k best scores and weighs those by a softmax among themselves (Granite, gpt-oss).

    Formula:
        s = W x [+ b];  chosen: the k largest s;  weights = softmax(chosen s)

    Shapes:
        x (N, d_model) → experts (N, k), weights (N, k)

    Paper:
        https://arxiv.org/abs/1701.06538

    Notes:
        The weights always add up to 1: the same numbers as `softmax-top-k` gives with `renormalize`. With `k: 1` the weight
        is 1 whatever the scores, so the router learns from `balance_loss` alone.
    """

    name: Literal["top-k-softmax"] = "top-k-softmax"

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"k": 1, "bias": True, "balance_loss": 0.01})

    def build(self, context: BuildContext, *, n_experts: int) -> TopKSoftmax:
        return TopKSoftmax(self, context, n_experts)


class TopKSoftmax(ScoredRouter):
    """The runtime part of `TopKSoftmaxSpec`."""

    def __init__(self, spec: TopKSoftmaxSpec, context: BuildContext, n_experts: int) -> None:
        super().__init__(spec, context, n_experts)
        self.k = spec.k

    def choose(self, logits_NX: Tensor) -> tuple[Tensor, Tensor]:
        best_NK, experts_NK = logits_NX.topk(self.k, dim=-1)
        return experts_NK, best_NK.softmax(dim=-1)
