"""`softmax-top-k` router.

Shapes: N tokens, E model width, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor

from gptkit.components.router.scored import GroupedRouterSpec, ScoredRouter
from gptkit.kinds.context import BuildContext

__all__ = ["SoftmaxTopK", "SoftmaxTopKSpec"]


class SoftmaxTopKSpec(GroupedRouterSpec):
    """Weighs all experts by a softmax and keeps the k best (Mixtral, Qwen, OLMoE, DeepSeek-V2).

    Formula:
        p = softmax(W x [+ b]);  chosen: the k largest p, of the top_groups best groups
        weight = scale · p, or scale · p / Σ chosen p with `renormalize`

    Shapes:
        x (N, d_model) → experts (N, k), weights (N, k)

    Paper:
        https://arxiv.org/abs/2401.04088

    Notes:
        Mixtral and Qwen renormalise; OLMoE and DeepSeek-V2 do not, and the latter limits tokens to groups. With `k: 1`, do
        not renormalise: a weight that is always 1 teaches the router nothing.
    """

    name: Literal["softmax-top-k"] = "softmax-top-k"

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"k": 1, "renormalize": False, "scale": 2.0},
        {"k": 2, "n_groups": 4, "top_groups": 2, "balance_loss": 0.01, "z_loss": 0.001},
    )

    def build(self, context: BuildContext, *, n_experts: int) -> SoftmaxTopK:
        return SoftmaxTopK(self, context, n_experts)


class SoftmaxTopK(ScoredRouter):
    """The runtime part of `SoftmaxTopKSpec`."""

    def __init__(self, spec: SoftmaxTopKSpec, context: BuildContext, n_experts: int) -> None:
        super().__init__(spec, context, n_experts)
        self.spec = spec

    def choose(self, logits_NX: Tensor) -> tuple[Tensor, Tensor]:
        shares_NX = logits_NX.softmax(dim=-1)
        experts_NK = self.spec.best(shares_NX)
        return experts_NK, self.spec.finish(shares_NX.gather(1, experts_NK))
