"""`sparsemixer` router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.router.scored import ScoredRouterSpec
from gptkit.kinds.context import BuildContext

if TYPE_CHECKING:
    from gptkit.nn.router import Router

__all__ = ["SparsemixerSpec"]


class SparsemixerSpec(ScoredRouterSpec):
    """Chooses experts one after the other, each weighed among those left that score nearly as well (Phi-3.5-MoE).

    Formula:
        s = W x [+ b];  for each choice, m being the largest score left:
        near = experts left with (m − s) / max(|s|, m) ≤ 2 · tolerance
        chosen: the largest; in training drawn by softmax(near s)
        weight = softmax(near s) at the chosen one

    Shapes:
        x (N, d_model) → experts (N, k), weights (N, k)

    Paper:
        https://arxiv.org/abs/2409.12136

    Notes:
        Weights do not add up to 1; an expert without rivals counts 1. In training, a drawn expert that is not the best
        counts a third in three of four cases, while its gradient stays whole (Heun's third-order estimate).
    """

    name: Literal["sparsemixer"] = "sparsemixer"
    tolerance: float = Field(0.01, gt=0, description="Half the relative distance to the best score that still takes part.")

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"k": 3, "tolerance": 0.5})

    def build(self, context: BuildContext, *, n_experts: int) -> Router:
        from gptkit.components.router.modules.sparsemixer import Sparsemixer

        return Sparsemixer(self, context, n_experts)
