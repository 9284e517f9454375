"""Optimizer `adamw`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.optimizer.groups import can_fuse, decay_groups, trainable
from gptkit.components.optimizer.options import Beta, Cautious, Decay
from gptkit.kinds.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = ["AdamWSpec"]


class AdamWSpec(OptimizerSpec):
    """Adam with decoupled weight decay.

    Formula:
        m ← β₁·m + (1 − β₁)·g
        v ← β₂·v + (1 − β₂)·g²
        u = (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
        θ ← θ − η·λ·θ − η·u    with `cautious`, θ − η·λ·θ only in entries where u·θ ≥ 0

    Paper:
        https://arxiv.org/abs/1711.05101, https://arxiv.org/abs/2510.12402 (cautious weight decay)

    Notes:
        Uses one fused kernel on the CPU and on CUDA. With `cautious`, a step copies the parameters with weight decay.
    """

    formula: ClassVar[str] = r"""
        m \leftarrow \beta_1 m + (1 - \beta_1) g \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2
        u = \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}
        \theta \leftarrow \theta - \eta \lambda \theta - \eta u
    """

    name: Literal["adamw"] = "adamw"
    elementwise: ClassVar[bool] = True
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.95), description="β₁ and β₂: decay rates of the moving averages of the gradient and of its square."
    )
    eps: float = Field(1e-8, gt=0, description="ε, added to the denominator.")
    weight_decay: float = Field(0.1, ge=0, description="λ, relative to the learning rate.")
    decay: Decay = "matrices"
    cautious: Cautious = False

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"cautious": True, "decay": "all"})

    def build(self, model: nn.Module) -> Optimizer:
        import torch

        from gptkit.components.optimizer.modules.cautious_adamw import CautiousAdamW

        parameters = trainable(model, self.groups)
        return (CautiousAdamW if self.cautious else torch.optim.AdamW)(
            decay_groups(parameters, self.learning_rate, self.weight_decay, everywhere=self.decay == "all"),
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.eps,
            fused=True if can_fuse(parameters) else None,
        )
