"""Optimizer `sgd`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.optimizer.groups import decay_groups, trainable
from gptkit.core.errors import Problem
from gptkit.kinds.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = ["SGDSpec"]


class SGDSpec(OptimizerSpec):
    """Stochastic gradient descent with momentum.

    Formula:
        g ← g + λ·θ
        v ← μ·v + g
        θ ← θ − η·v            (with nesterov: θ − η·(g + μ·v))

    Paper:
        https://proceedings.mlr.press/v28/sutskever13.html
    """

    formula: ClassVar[str] = r"""
        g \leftarrow g + \lambda \theta \qquad v \leftarrow \mu v + g
        \theta \leftarrow \theta - \eta v
    """

    name: Literal["sgd"] = "sgd"
    elementwise: ClassVar[bool] = True
    learning_rate: float = Field(0.1, gt=0, description="The peak learning rate.")
    momentum: float = Field(0.9, ge=0, lt=1, description="μ: the momentum.")
    nesterov: bool = Field(False, description="Use Nesterov momentum; requires a momentum above 0.")
    weight_decay: float = Field(0.0, ge=0, description="λ, added to the gradient of tensors of two or more dimensions.")

    def problems(self, context: Any) -> Iterator[Problem]:
        if self.nesterov and self.momentum == 0:
            yield Problem(("nesterov",), "requires a momentum above 0; set momentum: 0.9, or nesterov: false")

    def build(self, model: nn.Module) -> Optimizer:
        import torch

        return torch.optim.SGD(
            decay_groups(trainable(model, self.groups), self.learning_rate, self.weight_decay),
            lr=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
        )
