"""Optimizer `adopt`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.optimizer.groups import decay_groups, trainable
from gptkit.components.optimizer.options import Beta, Cautious, Decay
from gptkit.kinds.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = ["ADOPTSpec"]


class ADOPTSpec(OptimizerSpec):
    """ADOPT: Adam that converges with any β₂, with decoupled weight decay.

    Formula:
        t = 0: v ← g², and θ does not change
        t ≥ 1: n = clip(g / max(√v, ε), −c, c)    with c = t^p, p = clip_exponent
               m ← β₁·m + (1 − β₁)·n
               θ ← θ − η·λ·θ − η·m    with `cautious`, θ − η·λ·θ only in entries where m·θ ≥ 0
               v ← β₂·v + (1 − β₂)·g²

    Paper:
        https://arxiv.org/abs/2411.02853

    Notes:
        A gradient is divided by a second moment that does not contain it, and before it is averaged. t is the number of
        earlier updates of a parameter, so its first gradient sets only v.
    """

    formula: ClassVar[str] = r"""
        m \leftarrow \beta_1 m + (1 - \beta_1) \operatorname{clip}\left(\frac{g}{\max(\sqrt{v}, \epsilon)}, \pm t^p\right)
        \theta \leftarrow \theta - \eta \lambda \theta - \eta m
        v \leftarrow \beta_2 v + (1 - \beta_2) g^2
    """

    name: Literal["adopt"] = "adopt"
    elementwise: ClassVar[bool] = True
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.9999), description="β₁ and β₂: decay rates of the moving averages of the divided gradient and of the square."
    )
    eps: float = Field(1e-6, gt=0, description="ε: smallest divisor of a gradient.")
    clip_exponent: float | None = Field(
        0.25, ge=0, description="p: exponent of the bound of divided gradients; null for no bound."
    )
    weight_decay: float = Field(0.1, ge=0, description="λ, relative to the learning rate.")
    decay: Decay = "matrices"
    cautious: Cautious = False

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"clip_exponent": None, "cautious": True, "decay": "all"})

    def build(self, model: nn.Module) -> Optimizer:
        from gptkit.components.optimizer.modules.adopt import ADOPT

        parameters = trainable(model, self.groups)
        return ADOPT(
            decay_groups(parameters, self.learning_rate, self.weight_decay, everywhere=self.decay == "all"),
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.eps,
            clip_exponent=self.clip_exponent,
            cautious=self.cautious,
        )
