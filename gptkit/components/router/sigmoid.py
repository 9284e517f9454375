"""`sigmoid` router.

Shapes: N tokens, E model width, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gptkit.components.router.scored import GroupedRouterSpec, ScoredRouter
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward

__all__ = ["Sigmoid", "SigmoidSpec"]


class SigmoidSpec(GroupedRouterSpec):
    """Judges every expert by itself with a sigmoid, and can even out the load by a bias that only selects (DeepSeek-V3).

    Formula:
        s = σ(W x [+ b]);  chosen: the k largest s + c, of the top_groups best groups; c the selection bias
        weight = scale · s, or scale · s / Σ chosen s with `renormalize`
        In training, with `bias_rate`: c_x ← c_x + bias_rate · sign(mean load − load of x)

    Shapes:
        x (N, d_model) → experts (N, k), weights (N, k)

    Paper:
        https://arxiv.org/abs/2408.15664

    Notes:
        DeepSeek-V3 and GLM-4.5: `selection_bias`, `group_score: top-2-sum`. Llama 4: `k: 1`, `renormalize: false`.
    """

    name: Literal["sigmoid"] = "sigmoid"
    group_score: Literal["max", "top-2-sum"] = Field(
        "top-2-sum", description="What a group is judged by: its best expert, or its two best together."
    )
    selection_bias: bool = Field(False, description="Add a bias to the scores for choosing experts, not for weighing them.")
    bias_rate: float = Field(
        0.0, ge=0, description="How far the selection bias moves at each training pass towards an even load (0.001, say)."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"k": 1, "renormalize": False},
        {"n_groups": 2, "selection_bias": True, "bias_rate": 0.001, "scale": 2.5, "balance_loss": 0.001},
    )

    def build(self, context: BuildContext, *, n_experts: int) -> Sigmoid:
        return Sigmoid(self, context, n_experts)


class Sigmoid(ScoredRouter):
    """The runtime part of `SigmoidSpec`. The selection bias takes no gradient."""

    def __init__(self, spec: SigmoidSpec, context: BuildContext, n_experts: int) -> None:
        super().__init__(spec, context, n_experts)
        self.spec = spec
        self.selection_bias = (
            nn.Parameter(torch.zeros(n_experts), requires_grad=False) if spec.selection_bias or spec.bias_rate else None
        )

    def choose(self, logits_NX: Tensor) -> tuple[Tensor, Tensor]:
        scores_NX = logits_NX.sigmoid()
        judged_NX = scores_NX if self.selection_bias is None else scores_NX + self.selection_bias
        experts_NK = self.spec.best(judged_NX)
        return experts_NK, self.spec.finish(scores_NX.gather(1, experts_NK))

    def shares(self, logits_NX: Tensor) -> Tensor:
        scores_NX = logits_NX.sigmoid()
        return scores_NX / (scores_NX.sum(dim=-1, keepdim=True) + 1e-20)

    def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        experts_NK, weights_NK = super().forward(x_NE, forward, valid_N)
        if self.training and self.spec.bias_rate and torch.is_grad_enabled():
            self._follow(experts_NK if valid_N is None else experts_NK[valid_N])
        return experts_NK, weights_NK

    @torch.no_grad()
    def _follow(self, experts_NK: Tensor) -> None:
        assert self.selection_bias is not None
        if not experts_NK.is_meta:
            load_X = torch.bincount(experts_NK.flatten(), minlength=len(self.selection_bias)).float()
            self.selection_bias.add_((load_X.mean() - load_X).sign(), alpha=self.spec.bias_rate)
