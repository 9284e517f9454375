"""`top-k-softmax` router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from gptkit.components.router.scored import ScoredRouterSpec
from gptkit.kinds.context import BuildContext

if TYPE_CHECKING:
    from gptkit.nn.router import Router

__all__ = ["TopKSoftmaxSpec"]


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

    def build(self, context: BuildContext, *, n_experts: int) -> Router:
        from gptkit.components.router.modules.top_k_softmax import TopKSoftmax

        return TopKSoftmax(self, context, n_experts)
