"""Callbacks that a training has without their being in the list of its spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gptkit.core.errors import TrainingError
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
        """Return the optimizer's weights by the names of their parameters.

        Raises:
            TrainingError: a key is not a parameter of the model.
        """
        weights = self._optimizer.evaluation_weights()
        if any(parameter not in self._names for parameter in weights):
            raise TrainingError(
                f"evaluation_weights of {type(self._optimizer).__name__} returned weights by other keys than parameters",
                hint="Return a dict from the parameters of the model, which are tensors, to the tensors to evaluate with.",
            )
        return {self._names[parameter]: weight for parameter, weight in weights.items()}
