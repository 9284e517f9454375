"""Kinds `optimizer` and `schedule`."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from gptkit.core.component import Component

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["OptimizerSpec", "ScheduleSpec"]


class OptimizerSpec(Component):
    """Optimizer.

    `build` sets the `lr` of every parameter group relative to `learning_rate`; the trainer multiplies each by the
    schedule's factor. All state is in the optimizer's `state_dict`, as tensors and numbers.
    `gptkit.nn.parameters.parameter_options(model)` returns the options that the model's modules declare for each parameter:
    whether weight decay applies, whether it is a hidden matrix, and a factor of its learning rate.
    """

    kind: ClassVar[str] = "optimizer"

    learning_rate: float = Field(1e-3, gt=0, description="The peak learning rate.")

    @abstractmethod
    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of the model's trainable parameters (`requires_grad`), each in exactly one group.

        Other parameters are frozen (`training.freeze`); a step must not change them.
        """


class ScheduleSpec(Component):
    """Learning-rate schedule: a pure function of the step."""

    kind: ClassVar[str] = "schedule"

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the peak learning rate, 0 to 1, at `step` (counted from 0) of `steps`."""
