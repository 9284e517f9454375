"""A mixture of experts.

Shapes: B batch, T tokens, E model width, N = B · T, K experts chosen for a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from gptkit.core.component import component, optional_component
from gptkit.core.errors import Problem
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.router import RouterSpec
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward
from gptkit.ops.routing import run_experts

__all__ = ["Experts", "ExpertsSpec"]


class ExpertsSpec(FeedForwardSpec):
    """Mixture of experts (MoE): many feed-forwards, of which a router picks a few for every token.

    Formula:
        y = Σ weight_i · expert_i(x) over the experts i that the router chose for x
        With `weights_on: input`: y = Σ expert_i(weight_i · x)
        With `shared`: y + shared(x), or y + σ(w · x) · shared(x) with `shared_gate`

    Shapes:
        (B, T, d_model) → (B, T, d_model); each expert sees B · T · k / n_experts tokens on average

    Paper:
        https://arxiv.org/abs/1701.06538

    Notes:
        No token is dropped: an expert takes all that come. Any feed-forward can be an expert. For dense first layers, give
        these layers another feed-forward in the model's `layers`.
    """

    name: Literal["experts"] = "experts"
    n_experts: int = Field(8, description="How many experts there are to choose from.", ge=1)
    router: RouterSpec = component("softmax-top-k", description="Chooses the experts of each token and weighs them.")
    expert: FeedForwardSpec = component("gated", description="What each expert is; all are built alike.")
    shared: FeedForwardSpec | None = optional_component(
        description="A feed-forward that every token goes through besides; several shared experts are a wider one."
    )
    shared_gate: bool = Field(False, description="Multiply the shared one's output by a sigmoid gate of the input.")
    weights_on: Literal["output", "input"] = Field(
        "output", description="Weights multiply what an expert returns, or what it is given (Llama 4)."
    )

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {
            "n_experts": 4,
            "router": {"name": "sigmoid", "k": 1, "renormalize": False},
            "expert": {"name": "gated", "d_hidden": 16},
            "shared": {"name": "gated", "d_hidden": 24},
            "shared_gate": True,
            "weights_on": "input",
        },
        {"n_experts": 3, "router": {"name": "top-k-softmax", "bias": True}, "expert": {"name": "mlp", "d_hidden": 16}},
    )

    @model_validator(mode="after")
    def _gate_of_something(self) -> Self:
        if self.shared_gate and self.shared is None:
            raise ValueError("shared_gate needs a shared feed-forward to gate; give `shared`, or leave shared_gate out")
        return self

    def resolved(self, context: BuildContext) -> Any:
        return self.replace(
            router=self.router.resolved(context),
            expert=self.expert.resolved(context),
            shared=None if self.shared is None else self.shared.resolved(context),
        )

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        for problem in self.router.expert_problems(self.n_experts):
            yield problem.below("router")

    def build(self, context: BuildContext) -> FeedForward:
        return Experts(self, context)


class Experts(FeedForward):
    """The runtime part of `ExpertsSpec`."""

    def __init__(self, spec: ExpertsSpec, context: BuildContext) -> None:
        super().__init__()
        self.weights_on = spec.weights_on
        self.router = spec.router.build(context, n_experts=spec.n_experts)
        self.experts = nn.ModuleList(spec.expert.build(context) for _ in range(spec.n_experts))
        self.shared = None if spec.shared is None else spec.shared.build(context)
        self.shared_gate = nn.Linear(context.d_model, 1, bias=False) if spec.shared_gate else None

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        x_NE = x_BTE.flatten(0, 1)
        valid_BT = forward.valid_BT
        # Inside another expert the tokens are a selection, of which the call's padding says nothing.
        valid_N = None if valid_BT is None or valid_BT.shape != x_BTE.shape[:2] else valid_BT.flatten()
        experts_NK, weights_NK = self.router(x_NE, forward, valid_N)

        def run(index: int, piece_nE: Tensor) -> Tensor:
            out_1nE: Tensor = self.experts[index](piece_nE[None], forward)
            return out_1nE[0]

        y_NE = run_experts(x_NE, experts_NK, weights_NK, len(self.experts), run, weigh=self.weights_on)
        y_BTE = y_NE.view_as(x_BTE)
        if self.shared is not None:
            shared_BTE = self.shared(x_BTE, forward)
            if self.shared_gate is not None:
                shared_BTE = shared_BTE * self.shared_gate(x_BTE).sigmoid()
            y_BTE = y_BTE + shared_BTE
        return y_BTE
