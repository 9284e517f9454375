"""The torch module of `ExpertsSpec`.

Shapes: B batch, T tokens, E model width, N = B · T, K experts chosen for a token, M = N · K rows, sorted by expert.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.kinds.context import BuildContext
from gptkit.kinds.feedforward import FeedForwardSpec
from gptkit.nn.feedforward import FeedForward
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial
from gptkit.nn.stacked import StackedFeedForward, StackedModules
from gptkit.ops.grouped import group_rows, reorder

if TYPE_CHECKING:
    from gptkit.components.feedforward.experts import ExpertsSpec

__all__ = ["Experts", "stacked_form"]


class Experts(FeedForward):
    """Router, experts, and an optional shared feed-forward."""

    def __init__(self, spec: ExpertsSpec, context: BuildContext) -> None:
        super().__init__()
        self.n_experts, self.n_identities, self.n_zeros = spec.n_experts, spec.identity_experts, spec.zero_experts
        self.weights_on = spec.weights_on
        self.scale = spec.scale
        self.router = spec.router.build(context, n_experts=spec.n_choices)
        self.latent_down = context.linear(context.d_model, spec.latent, bias=False) if spec.latent else None
        self.experts = _experts(spec.expert, spec.inner_context("expert", context), spec.n_experts)
        self.latent_up = context.linear(spec.latent, context.d_model, bias=False) if spec.latent else None
        self.shared = None if spec.shared is None else spec.shared.build(context)
        self.shared_gate = nn.Linear(context.d_model, 1, bias=False) if spec.shared_gate else None
        self.output_bias = nn.Parameter(torch.zeros(context.d_model)) if spec.output_bias else None
        self.output_norm = None if spec.output_norm is None else spec.output_norm.build(context, dim=context.d_model)
        self.routed_norm, self.routed_output_norm = (_norm(spec, context) for _ in range(2))
        self.shared_norm, self.shared_output_norm = (_norm(spec, context, needed=bool(spec.shared)) for _ in range(2))

    def initial(self) -> dict[str, Initial]:
        initial: dict[str, Initial] = {} if self.latent_up is None else {"latent_up.weight": "output"}
        return initial if self.output_bias is None else {**initial, "output_bias": "zeros"}

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        x_NE = x_BTE.flatten(0, 1)
        valid_BT = forward.counted_BT
        # Inside another expert the tokens are a selection, so the padding mask of the whole call does not apply.
        valid_N = None if valid_BT is None or valid_BT.shape != x_BTE.shape[:2] else valid_BT.flatten()
        experts_NK, weights_NK = self.router(x_NE, forward, valid_N)
        x_NE = _normed(self.routed_norm, x_NE)
        y_NE: Tensor
        if self.latent_down is not None and self.latent_up is not None:
            y_NE = self.latent_up(self._routed(self.latent_down(x_NE), experts_NK, weights_NK, forward))
        else:
            y_NE = self._routed(x_NE, experts_NK, weights_NK, forward)
        y_BTE = _normed(self.routed_output_norm, y_NE).view_as(x_BTE)
        if self.shared is not None:
            shared_BTE = _normed(self.shared_output_norm, self.shared(_normed(self.shared_norm, x_BTE), forward))
            if self.shared_gate is not None:
                shared_BTE = shared_BTE * self.shared_gate(x_BTE).sigmoid()
            y_BTE = y_BTE + shared_BTE
        if self.scale != 1:
            y_BTE = y_BTE * self.scale
        if self.output_bias is not None:
            y_BTE = y_BTE + self.output_bias
        if self.output_norm is not None:
            y_BTE = self.output_norm(y_BTE)
        return y_BTE

    def _routed(self, x_NE: Tensor, experts_NK: Tensor, weights_NK: Tensor, forward: Forward) -> Tensor:
        """Return the weighted sum of the experts' outputs, (N, E)."""
        n_tokens, n_chosen = experts_NK.shape
        if n_tokens == 0:
            return x_NE
        groups = group_rows(experts_NK, self.n_experts, outside=self.n_identities + self.n_zeros > 0)
        x_NKE = x_NE[:, None].expand(-1, n_chosen, -1)
        if self.weights_on == "input":
            x_NKE = x_NKE * weights_NK[..., None]
        x_ME = reorder(x_NKE.flatten(0, 1), groups.order_M, groups.back_M)
        y_ME = self.experts(x_ME, groups, forward)
        # The outputs are reordered before the sum over a token's experts, so that its order is deterministic.
        y_NKE = reorder(y_ME, groups.back_M, groups.order_M).view(n_tokens, n_chosen, -1)
        if self.weights_on == "output":
            y_NKE = y_NKE * weights_NK[..., None]
        if not self.n_identities and not self.n_zeros:
            return y_NKE.sum(dim=1).to(x_NE.dtype)
        outside_NK = experts_NK >= self.n_experts
        y_NE = torch.where(outside_NK[..., None], 0.0, y_NKE).sum(dim=1)
        if self.n_identities:
            identities_NK = outside_NK & (experts_NK < self.n_experts + self.n_identities) if self.n_zeros else outside_NK
            y_NE = y_NE + torch.where(identities_NK, weights_NK, 0.0).sum(dim=1, keepdim=True) * x_NE
        return y_NE.to(x_NE.dtype)


def _norm(spec: ExpertsSpec, context: BuildContext, needed: bool = True) -> nn.Module | None:
    """Return a norm before or after a branch; None without `branch_norm`, or where the branch does not exist."""
    return spec.branch_norm.build(context, dim=context.d_model) if needed and spec.branch_norm is not None else None


def _normed(norm: nn.Module | None, x: Tensor) -> Tensor:
    y: Tensor = x if norm is None else norm(x)
    return y


def stacked_form(expert: FeedForwardSpec, context: BuildContext, n_experts: int) -> StackedFeedForward | None:
    """Return the experts of a mixture with stacked weights; None if each expert is a module of its own."""
    if not context.stacks_linears:
        return None
    # A subclass that overrides only `build` inherits a stacked form that does not match it.
    methods = (name for cls in type(expert).__mro__ for name in ("build_stacked", "build") if name in vars(cls))
    return expert.build_stacked(context, n_experts) if next(methods) == "build_stacked" else None


def _experts(expert: FeedForwardSpec, context: BuildContext, n_experts: int) -> StackedFeedForward:
    stacked = stacked_form(expert, context, n_experts)
    return StackedModules(expert.build(context) for _ in range(n_experts)) if stacked is None else stacked
