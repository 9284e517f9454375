"""Callbacks that a training has without their being in the list of its spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gptkit.kinds.callback import Callback, Training
from gptkit.training.config import TrainingSpec
from gptkit.training.stages import Stages

__all__ = ["OptimizerAverages", "internal_callbacks"]


def internal_callbacks(spec: TrainingSpec) -> list[Callback]:
    """Return the callbacks that other fields of a training need, in the order of their calls."""
    stages: list[Callback] = [Stages(spec)] if spec.stages else []
    return [*stages, *([OptimizerAverages()] if spec.optimizer.averages else [])]


class OptimizerAverages(Callback):
    """Internal callback that provides the weights of an optimizer that `averages` (`OptimizerSpec`)."""

    def __init__(self) -> None:
        self._optimizer: Any = None
        self._names: dict[Tensor, str] = {}

    def setup(self, training: Training) -> None:
        self._optimizer = training.optimizer
        self._names = {parameter: name for name, parameter in training.model.named_parameters()}

    def evaluation_weights(self) -> Mapping[str, Tensor]:
        return {self._names[parameter]: weight for parameter, weight in self._optimizer.evaluation_weights().items()}
