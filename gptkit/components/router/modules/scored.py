"""Base classes of routers that score experts by a linear projection.

Shapes: N tokens, E model width, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward
from gptkit.nn.full_precision import FullPrecision
from gptkit.nn.initial import Initial
from gptkit.nn.router import Router
from gptkit.ops.routing import balance_loss, limit_to_groups, z_loss

if TYPE_CHECKING:
    from gptkit.components.router.scored import GroupedRouterSpec, ScoredRouterSpec

__all__ = ["GroupedRouter", "ScoredRouter"]


class ScoredRouter(Router):
    """Base of routers that score experts by a linear projection. Subclasses implement `choose`.

    Scores are computed in fp32 or wider for every precision of the model, since rounding can change the chosen experts.
    """

    def __init__(self, spec: ScoredRouterSpec, context: BuildContext, n_experts: int) -> None:
        super().__init__()
        self.n_layers = context.n_layers
        self.loss_weights = {"load_balance": spec.balance_loss, "router_z": spec.z_loss}
        self.norm = None if spec.norm is None else spec.norm.build(context, dim=context.d_model)
        self.score_scale = spec.score_scale
        self.scores = nn.Linear(context.d_model, n_experts, bias=spec.bias)

    @abstractmethod
    def choose(self, logits_NX: Tensor, forward: Forward) -> tuple[Tensor, Tensor]:
        """Return the chosen experts, (N, K), and their weights, (N, K)."""

    def shares(self, logits_NX: Tensor) -> Tensor:
        """Return each expert's share of a token, (N, X), with sum 1, for the balance loss."""
        return logits_NX.softmax(dim=-1)

    def balance_loss(self, logits_NX: Tensor, experts_NK: Tensor, valid_N: Tensor | None) -> Tensor:
        """Return the loss of an uneven load, without its weight."""
        return balance_loss(self.shares(logits_NX), experts_NK, valid_N)

    def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logits_NX = self.logits(x_NE if self.norm is None else self.norm(x_NE))
        experts_NK, weights_NK = self.choose(logits_NX, forward)
        if self.training:
            if self.loss_weights["load_balance"]:
                loss = self.balance_loss(logits_NX, experts_NK, valid_N)
                self._add("load_balance", loss, forward)
            if self.loss_weights["router_z"]:
                self._add("router_z", z_loss(logits_NX, valid_N), forward)
        return experts_NK, weights_NK.to(x_NE.dtype)

    def logits(self, x_NE: Tensor) -> Tensor:
        """Return the scores before softmax or sigmoid, (N, X)."""
        dtype = torch.promote_types(x_NE.dtype, torch.float32)
        bias_X = None if self.scores.bias is None else self.scores.bias.to(dtype)
        scaled_NE = x_NE.to(dtype) if self.score_scale == 1 else x_NE.to(dtype) * self.score_scale
        with torch.autocast("cpu" if x_NE.is_meta else x_NE.device.type, enabled=False):
            return F.linear(scaled_NE, self.scores.weight.to(dtype), bias_X)

    def _add(self, name: str, loss: Tensor, forward: Forward) -> None:
        forward.add_loss(name, loss * (self.loss_weights[name] / self.n_layers))


class GroupedRouter(FullPrecision, ScoredRouter):
    """Base of routers that can limit the choice to the best groups of experts, and balance it with a selection bias.

    The selection bias receives no gradient; it is updated once per optimizer step. It is in fp32 in models of every dtype.
    """

    full_precision: ClassVar[frozenset[str]] = frozenset({"selection_bias"})

    load_X: Tensor

    def __init__(self, spec: GroupedRouterSpec, context: BuildContext, n_experts: int) -> None:
        super().__init__(spec, context, n_experts)
        self.spec = spec
        self.bias_rate = spec.bias_rate
        self.n_chosen_from = n_experts - spec.always
        biased = spec.selection_bias or spec.bias_rate
        self.selection_bias = nn.Parameter(torch.zeros(self.n_chosen_from), requires_grad=False) if biased else None
        self.expert_scale = nn.Parameter(torch.ones(n_experts)) if spec.expert_scale else None
        if spec.bias_rate:
            # Rows per expert since the last optimizer step; zero whenever a checkpoint is written.
            self.register_buffer("load_X", torch.zeros(self.n_chosen_from, dtype=torch.long), persistent=False)

    def best(self, scores_NX: Tensor) -> Tensor:
        """Return the k best experts of the best groups, after the selection bias, then those of `always`, (N, K)."""
        spec, n_experts = self.spec, scores_NX.shape[1]
        if spec.always:
            scores_NX = scores_NX[:, : self.n_chosen_from]
        if self.selection_bias is not None:
            scores_NX = scores_NX + self.selection_bias
        if spec.top_groups < spec.n_groups:
            scores_NX = limit_to_groups(scores_NX, spec.n_groups, spec.top_groups, spec.group_score)
        best_NK = scores_NX.topk(spec.k, dim=-1).indices
        if not spec.always:
            return best_NK
        always_X = torch.arange(self.n_chosen_from, n_experts, device=best_NK.device)
        return torch.cat((best_NK, always_X.expand(best_NK.shape[0], -1)), dim=1)

    def balance_loss(self, logits_NX: Tensor, experts_NK: Tensor, valid_N: Tensor | None) -> Tensor:
        spec = self.spec  # the load of experts that every token has cannot change
        return super().balance_loss(logits_NX[:, : self.n_chosen_from], experts_NK[:, : spec.k], valid_N)

    def finish(self, weights_NK: Tensor, experts_NK: Tensor) -> Tensor:
        """Return the weights, renormalized with `renormalize`, then scaled."""
        if self.spec.renormalize:
            weights_NK = weights_NK / (weights_NK.sum(dim=-1, keepdim=True) + 1e-20)
        if self.spec.scale != 1:
            weights_NK = weights_NK * self.spec.scale
        return weights_NK if self.expert_scale is None else weights_NK * self.expert_scale[experts_NK]

    def initial(self) -> dict[str, Initial]:
        return {} if self.expert_scale is None else {"expert_scale": "ones"}

    def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        experts_NK, weights_NK = super().forward(x_NE, forward, valid_N)
        if self.training and self.bias_rate and torch.is_grad_enabled():
            chosen_NK = experts_NK[:, : self.spec.k]  # without those of `always`
            counted_NK = torch.ones_like(chosen_NK)
            if valid_N is not None:
                counted_NK = counted_NK * valid_N[:, None]
            self.load_X.scatter_add_(0, chosen_NK.flatten(), counted_NK.flatten())
        return experts_NK, weights_NK

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the selection bias towards an even load, over the rows of all processes since the last step."""
        if not self.bias_rate or self.selection_bias is None:
            return
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.load_X)
        load_X = self.load_X.to(self.selection_bias.dtype)
        self.selection_bias.add_((load_X.mean() - load_X).sign(), alpha=self.bias_rate)
        self.load_X.zero_()
