"""`sigmoid` router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.router.scored import GroupedRouterSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.router import Router

__all__ = ["SigmoidSpec"]


class SigmoidSpec(GroupedRouterSpec):
    """Sigmoid scores for each expert, with an optional selection bias that balances the load (DeepSeek-V3).

    Formula:
        s = σ(W x [+ b]);  chosen: the k largest s + c, of the top_groups best groups; c the selection bias
        With `selects_by: logit`, the k largest W x + c
        weight = scale · s, or scale · s / Σ chosen s with `renormalize`; chosen with the last `always` experts in addition
        After each optimizer step, with `bias_rate`: c_x ← c_x + bias_rate · sign(mean load − load of x)

    Shapes:
        x (N, d_model) → experts (N, k), weights (N, k)

    Paper:
        https://arxiv.org/abs/2408.15664

    Notes:
        DeepSeek-V3 and GLM-4.5: `selection_bias`, `group_score: top-2-sum`. Llama 4: `k: 1`, `renormalize: false`.
        A custom training loop must call `gptkit.nn.after_step.after_step(model)` after each step of the optimizer.
    """

    formula: ClassVar[str] = r"""
        s = \sigma(W x) \qquad \text{chosen} = \operatorname{topk}(s + c)
        w = \text{scale} \cdot s \qquad c_x \leftarrow c_x + \gamma \operatorname{sign}(\bar{n} - n_x)
    """

    name: Literal["sigmoid"] = "sigmoid"
    group_score: Literal["max", "top-2-sum"] = Field(
        "top-2-sum", description="Score of a group: that of its best expert, or the sum of its two best."
    )

    selects_by: Literal["score", "logit"] = Field(
        "score", description="What the selection bias is added to: the score, or its argument of the sigmoid (Kolibri 1)."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"k": 1, "renormalize": False},
        {"selection_bias": True, "selects_by": "logit"},
        {"k": 1, "always": 2, "selection_bias": True, "scale": 2.0},
        {"n_groups": 2, "selection_bias": True, "bias_rate": 0.001, "scale": 2.5, "balance_loss": 0.001},
    )

    def build(self, context: BuildContext, *, n_experts: int) -> Router:
        from gptkit.components.router.modules.sigmoid import Sigmoid

        return Sigmoid(self, context, n_experts)

    def written(self, context: WritingContext, *, n_experts: int) -> Written:
        from gptkit.components.router.written.scored import grouped

        return grouped(self, context, n_experts, "sigmoid", by_logit=self.selects_by == "logit", more=["selects_by"])
