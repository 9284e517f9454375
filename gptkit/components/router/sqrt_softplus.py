"""`sqrt-softplus` router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.router.scored import GroupedRouterSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.router import Router

__all__ = ["SqrtSoftplusSpec"]


class SqrtSoftplusSpec(GroupedRouterSpec):
    """Scores √softplus for each expert, with an optional selection bias that balances the load (DeepSeek-V4).

    Formula:
        s = √ln(1 + exp(W x [+ b]));  chosen: the k largest s + c, of the top_groups best groups; c the selection bias
        weight = scale · s, or scale · s / Σ chosen s with `renormalize`
        After each optimizer step, with `bias_rate`: c_x ← c_x + bias_rate · sign(mean load − load of x)

    Shapes:
        x (N, d_model) → experts (N, k), weights (N, k)

    Paper:
        https://arxiv.org/abs/2408.15664

    Notes:
        The paper defines the selection bias. Unlike a sigmoid, the score has no upper bound: it grows with the root of W x.
        DeepSeek-V4: `selection_bias`, `renormalize`, scale 1.5.
    """

    formula: ClassVar[str] = r"""
        s = \sqrt{\ln(1 + e^{W x})} \qquad \text{chosen} = \operatorname{topk}(s + c)
        w = \text{scale} \cdot s \qquad c_x \leftarrow c_x + \gamma \operatorname{sign}(\bar{n} - n_x)
    """

    name: Literal["sqrt-softplus"] = "sqrt-softplus"
    group_score: Literal["max", "top-2-sum"] = Field(
        "top-2-sum", description="Score of a group: that of its best expert, or the sum of its two best."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"k": 1, "renormalize": False},
        {"n_groups": 2, "selection_bias": True, "bias_rate": 0.001, "scale": 1.5, "balance_loss": 0.001},
    )

    def build(self, context: BuildContext, *, n_experts: int) -> Router:
        from gptkit.components.router.modules.sqrt_softplus import SqrtSoftplus

        return SqrtSoftplus(self, context, n_experts)

    def written(self, context: WritingContext, *, n_experts: int) -> Written:
        from gptkit.components.router.written.scored import grouped

        return grouped(self, context, n_experts, "sqrt-softplus")
