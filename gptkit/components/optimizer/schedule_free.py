"""Optimizer `schedule-free`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from gptkit.components.optimizer.groups import decay_groups, trainable
from gptkit.components.optimizer.options import Beta, Cautious, Decay
from gptkit.kinds.optimizer import OptimizerSpec

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = ["ScheduleFreeSpec"]


class ScheduleFreeSpec(OptimizerSpec):
    """Schedule-free AdamW: an average of the weights takes the place of the decay of the learning rate.

    Formula:
        y = (1 − β₁)·z + β₁·x    gradients g are those at y
        v ← β₂·v + (1 − β₂)·g²
        z ← z − η·λ·y − η·g / (√(v / (1 − β₂ᵗ)) + ε)    with `cautious`, − η·λ·y only in entries where g·y ≥ 0
        x ← (1 − c)·x + c·z    with c = ηₜ² / (η₁² + … + ηₜ²)

    Paper:
        https://arxiv.org/abs/2405.15682

    Notes:
        The model has the weights y while it is trained, and x in validation, samples, the finished run, and exports, as with
        callback `ema`, with which it cannot be combined. A checkpoint has both. Use it with schedule `constant`; its warmup
        also lowers the weight of early steps in the average.
    """

    formula: ClassVar[str] = r"""
        y = (1 - \beta_1) z + \beta_1 x \qquad g = \nabla f(y) \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2
        z \leftarrow z - \eta \lambda y - \eta \frac{g}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}
        x \leftarrow (1 - c) x + c z \qquad c = \frac{\eta_t^2}{\sum_{i \le t} \eta_i^2}
    """

    name: Literal["schedule-free"] = "schedule-free"
    elementwise: ClassVar[bool] = True
    averages: ClassVar[bool] = True
    learning_rate: float = Field(2.5e-3, gt=0, description="The learning rate.")
    betas: tuple[Annotated[float, Field(gt=0, lt=1)], Beta] = Field(
        (0.9, 0.95), description="β₁: weight of x in y; β₂: decay rate of the moving average of the squared gradient."
    )
    eps: float = Field(1e-8, gt=0, description="ε, added to the denominator.")
    weight_decay: float = Field(0.1, ge=0, description="λ, relative to the learning rate.")
    decay: Decay = "matrices"
    cautious: Cautious = False

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({}, {"betas": (0.98, 0.99), "cautious": True, "decay": "all"})

    def build(self, model: nn.Module) -> Optimizer:
        from gptkit.components.optimizer.modules.schedule_free import ScheduleFreeAdamW

        parameters = trainable(model, self.groups)
        return ScheduleFreeAdamW(
            decay_groups(parameters, self.learning_rate, self.weight_decay, everywhere=self.decay == "all"),
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.eps,
            cautious=self.cautious,
        )
