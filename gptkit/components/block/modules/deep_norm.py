"""Runtime module of block `deep-norm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gptkit.kinds.context import BuildContext
from gptkit.nn.block import Block
from gptkit.nn.forward import Forward
from gptkit.nn.initial import Initial, Scaled, declared, scaled_projections
from gptkit.ops.dropout import dropout

if TYPE_CHECKING:
    from gptkit.components.block.deep_norm import DeepNormSpec

__all__ = ["DeepNorm"]


class DeepNorm(Block):
    """Runtime part of `DeepNormSpec`."""

    def __init__(self, spec: DeepNormSpec, context: BuildContext) -> None:
        super().__init__()
        assert spec.alpha is not None
        assert spec.beta is not None
        assert spec.feedforward_alpha is not None
        assert spec.feedforward_residual_scale is not None
        parts = context.parts
        self.alpha = spec.alpha
        self.feedforward_alpha = spec.feedforward_alpha
        self.beta = spec.beta
        self.residual_scale, self.feedforward_residual_scale = spec.residual_scale, spec.feedforward_residual_scale
        self.attention = parts.attention.build(context)
        self.attention_norm = parts.norm.build(context, dim=context.d_model)
        self.feedforward = parts.feedforward.build(context)
        self.feedforward_norm = parts.norm.build(context, dim=context.d_model)
        self.dropout = spec.dropout

    def initial(self) -> dict[str, Initial]:
        attention = scaled_projections(self.attention, self.beta, "value", "output")
        feedforward = [
            name for name, declaration in declared(self.feedforward).items() if declaration.initial in ("weight", "output")
        ]
        return {
            **{f"attention.{name}": scaled for name, scaled in attention.items()},
            **{f"feedforward.{name}": Scaled(self.beta) for name in feedforward},
        }

    def forward(self, x_BTE: Tensor, forward: Forward) -> Tensor:
        branch_BTE = dropout(self.attention(x_BTE, forward), self.dropout, self.training)
        x_BTE = self.attention_norm(_joined(x_BTE, self.alpha, branch_BTE, self.residual_scale))
        branch_BTE = dropout(self.feedforward(x_BTE, forward), self.dropout, self.training)
        joined_BTE = _joined(x_BTE, self.feedforward_alpha, branch_BTE, self.feedforward_residual_scale)
        y_BTE: Tensor = self.feedforward_norm(joined_BTE)
        return y_BTE


def _joined(x_BTE: Tensor, alpha: float, branch_BTE: Tensor, scale: float) -> Tensor:
    """Compute alpha · x + scale · branch."""
    return torch.add(branch_BTE if scale == 1 else branch_BTE * scale, x_BTE, alpha=alpha)
