"""`sparsemixer` router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.router.scored import ScoredRouterSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.router import Router

__all__ = ["SparsemixerSpec"]


class SparsemixerSpec(ScoredRouterSpec):
    """Sequential choice of experts, each weighted by a softmax over the remaining ones of similar score (Phi-3.5-MoE).

    Formula:
        s = W x [+ b];  for each choice, with the largest remaining score m:
        near = remaining experts with (m − s) / max(|s|, m) ≤ 2 · tolerance
        chosen: the largest; in training sampled from softmax(near s)
        weight = softmax(near s) at the chosen one

    Shapes:
        x (N, d_model) → experts (N, k), weights (N, k)

    Paper:
        https://arxiv.org/abs/2409.12136

    Notes:
        The sum of the weights is not 1; a single near expert has weight 1. In training, a sampled expert other than the best
        has a third of its weight in three of four cases, but the full gradient (Heun's third-order estimate).
    """

    formula: ClassVar[str] = r"""
        s = W x \qquad m = \max s
        \text{near} = \left\{i : \frac{m - s_i}{\max(|s_i|, m)} \le 2 \tau\right\}
        w = \operatorname{softmax}_{\text{near}}(s)
    """

    name: Literal["sparsemixer"] = "sparsemixer"
    tolerance: float = Field(0.01, gt=0, description="Half the maximum relative distance to the best score.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"k": 3, "tolerance": 0.5})

    def build(self, context: BuildContext, *, n_experts: int) -> Router:
        from gptkit.components.router.modules.sparsemixer import Sparsemixer

        return Sparsemixer(self, context, n_experts)

    def written(self, context: WritingContext, *, n_experts: int) -> Written:
        from gptkit.components.router.written.scored import sparsemixer

        return sparsemixer(self, context, n_experts)
