"""Mixture of experts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gptkit.core.component import component, optional_component
from gptkit.core.errors import Problem
from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.router import RouterSpec
from gptkit.kinds.written import WritingContext, Written

if TYPE_CHECKING:
    from gptkit.nn.feedforward import FeedForward

__all__ = ["ExpertsSpec"]


class ExpertsSpec(FeedForwardSpec):
    """Mixture of experts (MoE): a router selects a few of many feed-forwards for every token.

    Formula:
        y = Σ weight_i · expert_i(x) over the experts i that the router chose for x
        With `weights_on: input`: y = Σ expert_i(weight_i · x)
        With `latent`: y = W_up Σ weight_i · expert_i(W_down x), weights still of x
        With `shared`: y + shared(x), or y + σ(w · x) · shared(x) with `shared_gate`; the sum times `scale`
        With `identity_experts`: expert_i(x) = x for the last ones, to which no weights belong
        With `zero_experts`: expert_i(x) = 0 for those after them: a token that chooses one skips a part of the mixture
        With `output_bias`, b is added to the result; with `output_norm`, it is normalized
        With `branch_norm`: y = norm(Σ weight_i · expert_i(norm(x))) + norm(shared(norm(x))), four norms; weights of x itself

    Shapes:
        (B, T, d_model) → (B, T, d_model); each expert receives B · T · k / n_experts tokens on average

    Paper:
        https://arxiv.org/abs/1701.06538

    Notes:
        No token is dropped: experts have no capacity limit. Any feed-forward can be an expert; `gated` and `mlp` compute
        on stacked weights, one grouped product per projection. For dense first layers, override `feedforward` in the
        model's `layers`. With identity experts (https://arxiv.org/abs/2509.01322), tokens differ in their arithmetic.
    """

    formula: ClassVar[str] = r"y = \sum_{i \in \text{chosen}(x)} w_i(x)\,\text{expert}_i(x)"

    name: Literal["experts"] = "experts"
    n_experts: int = Field(8, description="Number of experts to choose from.", ge=1)
    identity_experts: int = Field(
        0,
        ge=0,
        description="Further experts, after the others, that return their input, without computation (LongCat-Flash).",
    )
    zero_experts: int = Field(
        0, ge=0, description="Further experts, the last ones, that return zeros, without computation (ZAYA1: 1)."
    )
    router: RouterSpec = component(
        "softmax-top-k", description="Router: chooses the experts of each token and their weights."
    )
    expert: FeedForwardSpec = component("gated", description="Spec of the feed-forward of every expert.")
    latent: int | None = Field(
        None,
        ge=1,
        description="Width of the vectors that the chosen experts receive and return (Nemotron 3); d_model by default.",
    )
    shared: FeedForwardSpec | None = optional_component(
        description="A feed-forward applied to every token in addition; several shared experts are a wider one."
    )
    shared_gate: bool = Field(False, description="Multiply the shared feed-forward's output by a sigmoid gate of the input.")
    weights_on: Literal["output", "input"] = Field(
        "output", description="Whether weights multiply an expert's output or its input (Llama 4)."
    )

    scale: float = Field(1.0, description="Factor of the output (Command A: 0.5, the mean of experts and shared one).", gt=0)

    output_bias: bool = Field(False, description="Add a bias to the output, before its norm (JetMoE).")

    output_norm: NormSpec | None = optional_component(description="Norm of the output (A.X K1), applied last.")
    branch_norm: NormSpec | None = optional_component(
        description="Norm before and after the chosen experts, and before and after the shared feed-forward (Gemma 4); the "
        "router reads the input itself."
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
            "scale": 0.5,
            "output_norm": "rms",
        },
        {
            "n_experts": 3,
            "router": {"name": "top-k-softmax", "bias": True},
            "expert": {"name": "mlp", "d_hidden": 16},
            "latent": 12,
            "identity_experts": 2,
            "zero_experts": 1,
            "output_bias": True,
        },
        {
            "n_experts": 4,
            "router": {
                "name": "softmax-top-k",
                "norm": {"name": "rms", "scale": False},
                "score_scale": 0.5,
                "expert_scale": True,
            },
            "expert": {"name": "gated", "d_hidden": 16},
            "shared": {"name": "gated", "d_hidden": 24},
            "branch_norm": "rms",
        },
    )

    def inner_context(self, field: str, context: BuildContext) -> BuildContext:
        return context.replace(d_model=self.latent) if field == "expert" and self.latent else context

    @model_validator(mode="after")
    def _gate_of_something(self) -> Self:
        if self.shared_gate and self.shared is None:
            raise ValueError("shared_gate needs a shared feed-forward to gate; set `shared`, or remove shared_gate")
        return self

    @property
    def n_choices(self) -> int:
        """Number of experts that the router chooses from, those without weights among them."""
        return self.n_experts + self.identity_experts + self.zero_experts

    def problems(self, context: BuildContext) -> Iterator[Problem]:
        for problem in self.router.expert_problems(self.n_choices):
            yield problem.below("router")

    def build(self, context: BuildContext) -> FeedForward:
        from gptkit.components.feedforward.modules.experts import Experts

        return Experts(self, context)

    def written(self, context: WritingContext) -> Written:
        from gptkit.components.feedforward.written.experts import experts

        return experts(self, context)
