"""The torch module of `SigmoidSpec`.

Shapes: N tokens, E model width, X experts, K experts chosen for a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gptkit.components.router.modules.scored import GroupedRouter
from gptkit.kinds.context import BuildContext
from gptkit.nn.forward import Forward

if TYPE_CHECKING:
    from gptkit.components.router.sigmoid import SigmoidSpec

__all__ = ["Sigmoid"]


class Sigmoid(GroupedRouter):
    """Module of `SigmoidSpec`. The selection bias receives no gradient; it is updated once per optimizer step."""

    load_X: Tensor

    def __init__(self, spec: SigmoidSpec, context: BuildContext, n_experts: int) -> None:
        super().__init__(spec, context, n_experts)
        self.bias_rate = spec.bias_rate
        self.selection_bias = (
            nn.Parameter(torch.zeros(n_experts), requires_grad=False) if spec.selection_bias or spec.bias_rate else None
        )
        if spec.bias_rate:
            # Rows per expert since the last optimizer step; zero whenever a checkpoint is written.
            self.register_buffer("load_X", torch.zeros(n_experts, dtype=torch.long), persistent=False)

    def choose(self, logits_NX: Tensor) -> tuple[Tensor, Tensor]:
        scores_NX = logits_NX.sigmoid()
        biased_NX = scores_NX if self.selection_bias is None else scores_NX + self.selection_bias
        experts_NK = self.best(biased_NX)
        return experts_NK, self.finish(scores_NX.gather(1, experts_NK))

    def shares(self, logits_NX: Tensor) -> Tensor:
        scores_NX = logits_NX.sigmoid()
        return scores_NX / (scores_NX.sum(dim=-1, keepdim=True) + 1e-20)

    def forward(self, x_NE: Tensor, forward: Forward, valid_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        experts_NK, weights_NK = super().forward(x_NE, forward, valid_N)
        if self.training and self.bias_rate and torch.is_grad_enabled():
            counted_NK = torch.ones_like(experts_NK)
            if valid_N is not None:
                counted_NK = counted_NK * valid_N[:, None]
            self.load_X.scatter_add_(0, experts_NK.flatten(), counted_NK.flatten())
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
