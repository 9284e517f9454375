"""`network` router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.router.scored import GroupedRouterSpec
from gptkit.core.component import component
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.router import Router

__all__ = ["NetworkSpec"]


class NetworkSpec(GroupedRouterSpec):
    """Scores of a small network in place of one projection, which may read what earlier layers' routers computed (ZAYA1).

    Formula:
        r = W_down x + b_down, with `reads_previous` + γ ⊙ r of the previous layer
        h = norm(r), and `hidden_layers` times h ← activation(W h + b)
        s = f(W_scores h [+ b]);  f: softmax over all experts, sigmoid, or √softplus
        chosen: the k largest s [+ c], of the top_groups best groups; c the selection bias
        weight = scale · s, or scale · s / Σ chosen s with `renormalize`

    Shapes:
        x (N, d_model) → experts (N, k), weights (N, k); r and γ: d_hidden features

    Paper:
        https://arxiv.org/abs/2605.05365

    Notes:
        With `reads_previous`, r is a sum over the layers up to this one (depth averaging): a block carries r to the next
        (`Forward.carry`). In the first layer, and where the previous block carries none, r = W_down x + b_down. γ begins
        with 1. With `k: 1`, do not renormalize: a weight that is always 1 has no gradient for the router.
    """

    formula: ClassVar[str] = r"""
        r_l = W_{\text{down}} x + \gamma \odot r_{l-1}
        s = \operatorname{softmax}(W\,\text{network}(\operatorname{norm}(r_l))) \qquad
        \text{chosen} = \operatorname{topk}(s + c) \qquad w_i = \text{scale} \cdot s_i
    """

    name: Literal["network"] = "network"
    d_hidden: int | None = Field(None, ge=1, description="Width of the network; d_model / 8 by default.")
    hidden_layers: int = Field(2, ge=0, description="Number of projections with an activation, before that of the scores.")
    activation: ActivationSpec = component("gelu", description="Activation of the network.")
    hidden_bias: bool = Field(True, description="Add biases to the projections before that of the scores.")
    norm: NormSpec = component("rms", description="Norm of r, the input of the network.")
    reads_previous: bool = Field(
        False, description="Add r of the previous layer's router to r, each feature times a learned factor."
    )
    score: Literal["softmax", "sigmoid", "sqrt-softplus"] = Field(
        "softmax", description="Function of the network's output that gives the scores."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"k": 1, "renormalize": False, "reads_previous": True, "selection_bias": True, "d_hidden": 12},
        {"d_hidden": 10, "hidden_layers": 1, "hidden_bias": False, "norm": "none", "bias": True, "score": "sigmoid"},
        {
            "d_hidden": 9,
            "hidden_layers": 0,
            "activation": "silu",
            "score": "sqrt-softplus",
            "z_loss": 0.001,
            "score_scale": 0.5,
        },
    )

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(d_hidden=self.d_hidden or max(1, context.d_model // 8))

    def inner_context(self, field: str, context: BuildContext) -> BuildContext:
        return context.replace(d_model=self.d_hidden or max(1, context.d_model // 8))

    def build(self, context: BuildContext, *, n_experts: int) -> Router:
        from gptkit.components.router.modules.network import NetworkRouter

        return NetworkRouter(self, context, n_experts)

    def written(self, context: WritingContext, *, n_experts: int) -> Written:
        from gptkit.components.router.written.network import network

        return network(self, context, n_experts)
