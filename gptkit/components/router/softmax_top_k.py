"""`softmax-top-k` router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from gptkit.components.router.scored import GroupedRouterSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.router import Router

__all__ = ["SoftmaxTopKSpec"]


class SoftmaxTopKSpec(GroupedRouterSpec):
    """Softmax over all experts, of which the k best are kept (Mixtral, Qwen, OLMoE, DeepSeek-V2).

    Formula:
        p = softmax(W x [+ b]);  chosen: the k largest p [+ c], of the top_groups best groups; c the selection bias
        weight = scale · p, or scale · p / Σ chosen p with `renormalize`; times a number of the expert with `expert_scale`
        With `norm` and `score_scale`, scores are score_scale · W norm(x) [+ b]

    Shapes:
        x (N, d_model) → experts (N, k), weights (N, k)

    Paper:
        https://arxiv.org/abs/2401.04088

    Notes:
        Mixtral and Qwen renormalize; OLMoE and DeepSeek-V2 do not, and the latter limits tokens to groups. ERNIE 4.5 has a
        selection bias. With `k: 1`, do not renormalize: a weight that is always 1 has no gradient for the router.
    """

    formula: ClassVar[str] = r"""
        p = \operatorname{softmax}(W x) \qquad \text{chosen} = \operatorname{topk}(p)
        w_i = \text{scale} \cdot p_i
    """

    name: Literal["softmax-top-k"] = "softmax-top-k"

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"k": 1, "renormalize": False, "scale": 2.0},
        {"k": 2, "n_groups": 4, "top_groups": 2, "balance_loss": 0.01, "z_loss": 0.001},
        {"selection_bias": True, "bias_rate": 0.001},
        {"norm": "rms", "score_scale": 0.25, "expert_scale": True, "scale": 1.5},
    )

    def build(self, context: BuildContext, *, n_experts: int) -> Router:
        from gptkit.components.router.modules.softmax_top_k import SoftmaxTopK

        return SoftmaxTopK(self, context, n_experts)

    def written(self, context: WritingContext, *, n_experts: int) -> Written:
        from gptkit.components.router.written.scored import grouped

        return grouped(self, context, n_experts, "softmax")
