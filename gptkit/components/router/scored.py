"""What routers that score experts by a linear projection have in common.

Shapes: N tokens, E model width, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gptkit.core.errors import Problem
from gptkit.kinds.context import BuildContext
from gptkit.kinds.router import RouterSpec
from gptkit.nn.forward import Forward
from gptkit.nn.router import Router
from gptkit.ops.routing import balance_loss, limit_to_groups, z_loss

__all__ = ["GroupedRouterSpec", "ScoredRouter", "ScoredRouterSpec"]


class ScoredRouterSpec(RouterSpec):
    """The fields of routers that score experts by a linear projection."""

    k: int = Field(2, ge=1, description="Experts that each token goes to.")
    bias: bool = Field(False, description="Add a bias to the projection that makes the scores.")
    balance_loss: float = Field(
        0.0, ge=0, description="Weight of the loss that evens out the load in training, averaged over the model's layers."
    )
    z_loss: float = Field(
        0.0, ge=0, description="Weight of the loss that keeps scores small in training, averaged over the model's layers."
    )

    def expert_problems(self, n_experts: int) -> Iterator[Problem]:
        if self.k > n_experts:
            yield Problem(
                ("k",), f"each token goes to {self.k} experts, but there are {n_experts}; lower k, or raise n_experts"
            )


class GroupedRouterSpec(ScoredRouterSpec):
    """The fields of routers that may first choose groups of experts, and then experts of these."""

    renormalize: bool = Field(True, description="Divide the chosen weights by their sum, so that they add up to `scale`.")
    scale: float = Field(1.0, gt=0, description="Factor of the weights, applied last.")
    n_groups: int = Field(1, ge=1, description="Groups that the experts are in, neighbours together.")
    top_groups: int = Field(1, ge=1, description="Groups that a token's experts may come from, the best ones.")
    group_score: Literal["max", "top-2-sum"] = Field(
        "max", description="What a group is judged by: its best expert, or its two best together."
    )

    def expert_problems(self, n_experts: int) -> Iterator[Problem]:
        yield from super().expert_problems(n_experts)
        size, rest = divmod(n_experts, self.n_groups)
        if rest:
            yield Problem(
                ("n_groups",), f"{n_experts} experts cannot be split into {self.n_groups} even groups; choose a divisor"
            )
        elif self.top_groups > self.n_groups:
            yield Problem(("top_groups",), f"only {self.n_groups} groups are there; choose at most as many")
        elif self.k > self.top_groups * size:
            yield Problem(
                ("top_groups",),
                f"{self.top_groups} groups of {size} experts cannot give {self.k}; raise top_groups, or lower k",
            )
        elif self.group_score == "top-2-sum" and self.n_groups > 1 and size < 2:
            yield Problem(("group_score",), "a group of one expert has no two best; set group_score: max, or lower n_groups")

    def best(self, scores_NX: Tensor) -> Tensor:
        """(N, K): the best experts, of the best groups."""
        if self.top_groups < self.n_groups:
            scores_NX = limit_to_groups(scores_NX, self.n_groups, self.top_groups, self.group_score)
        return scores_NX.topk(self.k, dim=-1).indices

    def finish(self, weights_NK: Tensor) -> Tensor:
        """Renormalised where asked for, then scaled."""
        if self.renormalize:
            weights_NK = weights_NK / (weights_NK.sum(dim=-1, keepdim=True) + 1e-20)
        return weights_NK if self.scale == 1 else weights_NK * self.scale


class ScoredRouter(Router):
    """Base of routers that score experts by a linear projection. A subclass chooses in `choose`.

    Scores are computed in fp32 or wider, whatever the precision around them: a rounding here is another expert.
    """

    def __init__(self, spec: ScoredRouterSpec, context: BuildContext, n_experts: int) -> None:
        super().__init__()
        self.n_layers = context.n_layers
        self.losses = {"load_balance": spec.balance_loss, "router_z": spec.z_loss}
        self.scores = nn.Linear(context.d_model, n_experts, bias=spec.bias)

    @abstractmethod
    def choose(self, logits_NX: Tensor) -> tuple[Tensor, Tensor]:
        """The chosen experts (N, K) and their weights (N, K)."""

    def shares(self, logits_NX: Tensor) -> Tensor:
        """How much of a token each expert would get, (N, X), adding up to 1: what the balance loss looks at."""
        return logits_NX.softmax(dim=-1)

    def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logits_NX = self.logits(x_NE)
        experts_NK, weights_NK = self.choose(logits_NX)
        if self.training:
            if self.losses["load_balance"]:
                loss = balance_loss(self.shares(logits_NX), experts_NK, valid_N)
                self._add("load_balance", loss, forward)
            if self.losses["router_z"]:
                self._add("router_z", z_loss(logits_NX, valid_N), forward)
        return experts_NK, weights_NK.to(x_NE.dtype)

    def logits(self, x_NE: Tensor) -> Tensor:
        """(N, X)."""
        dtype = torch.promote_types(x_NE.dtype, torch.float32)
        bias_X = None if self.scores.bias is None else self.scores.bias.to(dtype)
        with torch.autocast("cpu" if x_NE.is_meta else x_NE.device.type, enabled=False):
            return F.linear(x_NE.to(dtype), self.scores.weight.to(dtype), bias_X)

    def _add(self, name: str, loss: Tensor, forward: Forward) -> None:
        forward.add_loss(name, loss * (self.losses[name] / self.n_layers))
