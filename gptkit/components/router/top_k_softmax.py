"""`top-k-softmax` router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from gptkit.components.router.scored import ScoredRouterSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.router import Router

__all__ = ["TopKSoftmaxSpec"]


class TopKSoftmaxSpec(ScoredRouterSpec):
    """Softmax over the k best scores (Granite, gpt-oss).

    Formula:
        s = W x [+ b];  chosen: the k largest s;  weights = softmax(chosen s)

    Shapes:
        x (N, d_model) → experts (N, k), weights (N, k)

    Paper:
        https://arxiv.org/abs/1701.06538

    Notes:
        The sum of the weights is 1, as for `softmax-top-k` with `renormalize`. With `k: 1` the weight is always 1, so the
        router receives gradients from `balance_loss` and `z_loss` only.
    """

    formula: ClassVar[str] = r"""
        s = W x \qquad \text{chosen} = \operatorname{topk}(s)
        w = \operatorname{softmax}_{\text{chosen}}(s)
    """

    name: Literal["top-k-softmax"] = "top-k-softmax"

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"k": 1, "bias": True, "balance_loss": 0.01})

    def build(self, context: BuildContext, *, n_experts: int) -> Router:
        from gptkit.components.router.modules.top_k_softmax import TopKSoftmax

        return TopKSoftmax(self, context, n_experts)

    def written(self, context: WritingContext, *, n_experts: int) -> Written:
        from gptkit.components.router.written.scored import top_k_softmax

        return top_k_softmax(self, context, n_experts)
