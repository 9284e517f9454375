"""Optimizer `lion`."""

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

__all__ = ["LionSpec"]


class LionSpec(OptimizerSpec):
    """Lion: the update is the sign of a momentum, with one number of state per parameter.

    Formula:
        u = sign(β₁·m + (1 − β₁)·g)
        θ ← θ − η·λ·θ − η·u    with `cautious`, θ − η·λ·θ only in entries where u·θ ≥ 0
        m ← β₂·m + (1 − β₂)·g

    Paper:
        https://arxiv.org/abs/2302.06675

    Notes:
        Every entry moves by the learning rate. The paper uses learning rates 3 to 10 times smaller than those of AdamW, and
        weight decay larger by the same factor, so that their product is the same; the defaults are those of `adamw` with a
        factor of 10.
    """

    formula: ClassVar[str] = r"""
        u = \operatorname{sign}(\beta_1 m + (1 - \beta_1) g)
        \theta \leftarrow \theta - \eta \lambda \theta - \eta u
        m \leftarrow \beta_2 m + (1 - \beta_2) g
    """

    name: Literal["lion"] = "lion"
    elementwise: ClassVar[bool] = True
    learning_rate: float = Field(1e-4, gt=0, description="The peak learning rate.")
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.99), description="β₁: weight of the momentum in the update; β₂: decay rate of the momentum."
    )
    weight_decay: float = Field(1.0, ge=0, description="λ, relative to the learning rate.")
    decay: Decay = "matrices"
    cautious: Cautious = False

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"betas": (0.95, 0.98), "cautious": True, "decay": "all"})

    def build(self, model: nn.Module) -> Optimizer:
        from gptkit.components.optimizer.modules.lion import Lion

        parameters = trainable(model, self.groups)
        return Lion(
            decay_groups(parameters, self.learning_rate, self.weight_decay, everywhere=self.decay == "all"),
            lr=self.learning_rate,
            betas=self.betas,
            cautious=self.cautious,
        )
