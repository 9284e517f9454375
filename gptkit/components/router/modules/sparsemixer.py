"""The torch module of `SparsemixerSpec`.

Shapes: N tokens, E model width, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gptkit.components.router.modules.scored import ScoredRouter
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward

if TYPE_CHECKING:
    from gptkit.components.router.sparsemixer import SparsemixerSpec

__all__ = ["Sparsemixer"]


class Sparsemixer(ScoredRouter):
    """Module of `SparsemixerSpec`."""

    def __init__(self, spec: SparsemixerSpec, context: BuildContext, n_experts: int) -> None:
        super().__init__(spec, context, n_experts)
        self.k = spec.k
        self.tolerance = spec.tolerance

    def choose(self, logits_NX: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
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
        # Gumbel-max trick: the largest of logits plus Gumbel noise is a sample from the softmax.
        noise_NX = torch.empty_like(near_NX).exponential_().log()
        return (near_NX.detach() - noise_NX).argmax(dim=-1, keepdim=True)
