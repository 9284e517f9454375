"""`sparsemixer` router.

Shapes: N tokens, E model width, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from gptkit.components.router.scored import ScoredRouter, ScoredRouterSpec
from gptkit.kinds.context import BuildContext

__all__ = ["Sparsemixer", "SparsemixerSpec"]


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

    def build(self, context: BuildContext, *, n_experts: int) -> Sparsemixer:
        return Sparsemixer(self, context, n_experts)


class Sparsemixer(ScoredRouter):
    """The runtime part of `SparsemixerSpec`."""

    def __init__(self, spec: SparsemixerSpec, context: BuildContext, n_experts: int) -> None:
        super().__init__(spec, context, n_experts)
        self.k = spec.k
        self.tolerance = spec.tolerance

    def choose(self, logits_NX: Tensor) -> tuple[Tensor, Tensor]:
        left_NX = logits_NX
        chosen: list[Tensor] = []
        weights: list[Tensor] = []
        for _ in range(self.k):
            best_N1 = left_NX.detach().amax(dim=-1, keepdim=True)
            distance_NX = (best_N1 - logits_NX.detach()) / logits_NX.detach().abs().clamp(min=best_N1)
            near_NX = left_NX.masked_fill(distance_NX > 2 * self.tolerance, float("-inf"))
            shares_NX = near_NX.softmax(dim=-1)
            largest_N1 = left_NX.argmax(dim=-1, keepdim=True)
            expert_N1 = self._draw(near_NX) if self.training else largest_N1
            weight_N1 = shares_NX.gather(1, expert_N1)
            if self.training:
                whole = (expert_N1 == largest_N1) | (torch.rand_like(weight_N1) > 0.75)
                weight_N1 = weight_N1 - torch.where(whole, 0, weight_N1.detach() * 2 / 3)
            chosen.append(expert_N1)
            weights.append(weight_N1)
            left_NX = left_NX.scatter(1, expert_N1, float("-inf"))
        return torch.cat(chosen, dim=1), torch.cat(weights, dim=1)

    @staticmethod
    def _draw(near_NX: Tensor) -> Tensor:
        # The Gumbel trick: adding such noise and taking the largest draws from the softmax.
        noise_NX = torch.empty_like(near_NX).exponential_().log()
        return (near_NX.detach() - noise_NX).argmax(dim=-1, keepdim=True)
