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
    """How gradients change weights.

    `build` gives every parameter group its own `lr` relative to `learning_rate`; the trainer multiplies each by the
    schedule's factor. State lives in the optimizer's `state_dict` only, as tensors and numbers.
    `gptkit.nn.parameters.parameter_options(model)` returns what the model's modules declare about each parameter: whether it
    decays, whether it is a hidden matrix, and a factor of its learning rate.
    """

    kind: ClassVar[str] = "optimizer"

    learning_rate: float = Field(1e-3, gt=0, description="The peak learning rate.")

    @abstractmethod
    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the model's trainable parameters (`requires_grad`), each in exactly one group.

        Others are frozen (`training.freeze`), and a step must leave them as they are.
        """


class ScheduleSpec(Component):
    """How the learning rate runs over a training. A pure function of the step."""

    kind: ClassVar[str] = "schedule"

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """The share of the peak rate, 0 to 1, at `step` (counted from 0) of `steps`."""
