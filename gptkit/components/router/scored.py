"""Fields of the routers that score experts by a linear projection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from gptkit.core.component import optional_component
from gptkit.core.errors import Problem
from gptkit.kinds.norm import NormSpec
from gptkit.kinds.router import RouterSpec

__all__ = ["GroupedRouterSpec", "ScoredRouterSpec"]


class ScoredRouterSpec(RouterSpec):
    """The fields of routers that score experts by a linear projection."""

    k: int = Field(2, ge=1, description="Number of experts per token.")
    bias: bool = Field(False, description="Add a bias to the projection that computes the scores.")
    norm: NormSpec | None = optional_component(description="Norm of the vectors that are scored (Gemma 4).")
    score_scale: float = Field(1.0, gt=0, description="Factor of W x (Gemma 4: 1/√d_model).")
    balance_loss: float = Field(
        0.0,
        ge=0,
        description="Weight of the auxiliary loss that balances the load in training, averaged over the model's layers: "
        "n Σ_x (tokens that chose x / tokens) · (mean share of x in the scores), over the n experts that can be chosen.",
    )
    z_loss: float = Field(
        0.0,
        ge=0,
        description="Weight of the auxiliary loss that keeps scores small in training, averaged over the model's layers: "
        "the mean of (ln Σ exp(W x))², over all experts.",
    )

    def expert_problems(self, n_experts: int) -> Iterator[Problem]:
        if self.k > n_experts:
            yield Problem(("k",), f"k is {self.k}, but the layer has {n_experts} experts; lower k, or raise n_experts")


class GroupedRouterSpec(ScoredRouterSpec):
    """The fields of routers that can limit the choice to the best groups of experts."""

    renormalize: bool = Field(True, description="Divide the chosen weights by their sum, so that their sum is `scale`.")
    scale: float = Field(1.0, gt=0, description="Factor of the weights, applied last.")
    expert_scale: bool = Field(
        False, description="Multiply a weight by a learned number of its expert, initially 1, last (Gemma 4)."
    )
    always: int = Field(
        0,
        ge=0,
        description="Number of the last experts that every token has in addition to the k chosen ones: shared experts with "
        "weights of their own, which count for `renormalize` (Inkling: 2).",
    )
    n_groups: int = Field(1, ge=1, description="Number of groups; consecutive experts form a group.")
    top_groups: int = Field(1, ge=1, description="Number of groups that a token's experts are chosen from, the best ones.")
    selection_bias: bool = Field(False, description="Add a bias to the scores that select experts, but not to the weights.")
    bias_rate: float = Field(
        0.0, ge=0, description="Change of the selection bias towards an even load per optimizer step, such as 0.001."
    )
    group_score: Literal["max", "top-2-sum"] = Field(
        "max", description="Score of a group: that of its best expert, or the sum of its two best."
    )

    def expert_problems(self, n_experts: int) -> Iterator[Problem]:
        if self.always >= n_experts:
            yield Problem(
                ("always",), f"is {self.always}, but the layer has {n_experts} experts; lower it, or raise n_experts"
            )
            return
        n_experts -= self.always
        if self.k > n_experts and self.always:
            yield Problem(
                ("k",),
                f"k is {self.k}, but {n_experts} experts remain without those of `always`; lower k, or raise n_experts",
            )
            return
        yield from super().expert_problems(n_experts)
        size, rest = divmod(n_experts, self.n_groups)
        if rest:
            yield Problem(
                ("n_groups",), f"{n_experts} experts cannot be split into {self.n_groups} equal groups; choose a divisor"
            )
        elif self.top_groups > self.n_groups:
            yield Problem(("top_groups",), f"is {self.top_groups}, but the layer has {self.n_groups} groups; lower it")
        elif self.k > self.top_groups * size:
            yield Problem(
                ("top_groups",),
                f"{self.top_groups} groups of {size} experts have fewer than {self.k}; raise top_groups, or lower k",
            )
        elif self.group_score == "top-2-sum" and self.n_groups > 1 and size < 2:
            yield Problem(
                ("group_score",), "a group of one expert has no second best; set group_score: max, or lower n_groups"
            )
