"""Kind `callback`."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gptkit.core.component import Component
from gptkit.kinds.tracker import TrainingStart

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Callback", "CallbackSpec", "StepPlan", "Training"]


@dataclass(frozen=True)
class StepPlan:
    """Plan of one training step.

    Attributes:
        rate: the learning rate as a multiple of each parameter group's peak rate; the schedule's factor.
        batch_size: data windows in the batch, over all processes and accumulated parts.
        length: number of tokens of each data window that are used, from the first.
        mixture: relative weights of the sources of the data `mixture` from this step on, by name; sources that are not named
            are not drawn. None for the weights of the data. A run stores every change, so it should change rarely.
    """

    rate: float
    batch_size: int
    length: int
    mixture: Mapping[str, float] | None = None

    def replace(self, **changes: Any) -> StepPlan:
        """Return a copy with some attributes changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Training:
    """The objects of a training that callbacks may read and change.

    Attributes:
        model: the model. Its parameters may be sharded over processes (`DTensor`); operations on them work as usual.
        optimizer: the optimizer of its parameters.
        steps: the total number of steps.
        seed: the training's seed; derive randomness from it and the step.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    steps: int
    seed: int


class Callback:
    """Base class of training callbacks. Every method does nothing by default; an exception ends the training.

    The order of calls is `setup`, `load_state_dict` (when a run is resumed), `on_start`; for each step `plan`,
    `on_step_start`, `on_gradients`, `accepts`, `on_step`, then what is due of `measure`, `on_metrics`, `on_sample` and
    `on_checkpoint`; at the end `on_end`.
    A `step` counts the steps done so far, so that `plan` and `on_step_start` of the first step receive 0 and its `on_step`
    receives 1.

    With several processes, every process has the callback and makes the same calls. A callback must not draw from global
    random generators; it derives random numbers from the seed and the step.
    """

    def setup(self, training: Training) -> None:
        """Receive the model and the optimizer, before anything else."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs, as tensors, numbers, texts, lists and mappings."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned when the checkpoint was saved."""

    def on_start(self, start: TrainingStart) -> None:
        """Called before the first step."""

    def plan(self, step: int, plan: StepPlan) -> StepPlan:
        """Return the plan of the next step, changed or not. A pure function of the step and the callback's state."""
        return plan

    def on_step_start(self, step: int) -> None:
        """Called before the batch is computed: change attributes of modules here (such as `Attention.training_window`)."""

    def on_gradients(self, step: int) -> None:
        """Called after the backward pass, before gradients (each parameter's `grad`) are clipped and applied."""

    def accepts(self, step: int, loss: float, norm: float) -> bool:
        """Return whether the optimizer may apply the gradients; otherwise the optimizer skips the step. True by default.

        Called after the backward pass, with the same numbers in every process. A callback that defines it makes every step
        wait for the device.

        Args:
            step: number of steps before this one.
            loss: the loss of the batch; may be NaN or infinite.
            norm: the norm of the gradient before clipping; may be NaN or infinite.
        """
        return True

    def on_step(self, step: int) -> None:
        """Called after the optimizer's step. Must be cheap: the device may still be computing."""

    def measure(self, step: int) -> Mapping[str, float]:
        """Return numbers to record with the loss, after `on_step` of the steps that are logged; none by default.

        Names have a slash, and are thus never those of the training itself: ``{"gradient_norm/embedding": 0.1}``.
        """
        return {}

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Receive numbers after a step: `loss`, `learning_rate`, `tokens_per_second`, `validation_loss`, …"""

    def ends(self, step: int) -> bool:
        """Return whether the training ends with the steps done so far, as after the last one: at a plateau, for example.

        Called before each step, after the metrics of the one before. A checkpoint is saved, and the run is finished. A
        resumed run asks again before its first step. False by default.
        """
        return False

    def on_sample(self, step: int, text: str) -> None:
        """Receive a sample of generated text."""

    def on_checkpoint(self, step: int, directory: Path) -> None:
        """Called after a checkpoint is complete on disk."""

    def on_end(self, step: int, error: BaseException | None) -> None:
        """Called after the last step, or when the training stopped early (`error`, KeyboardInterrupt included)."""

    def evaluation_weights(self) -> Mapping[str, Tensor] | None:
        """Return the weights to evaluate, sample and load the run with, by parameter name; None for those in training.

        Missing parameters keep the trained values. At most one callback of a training may return weights.
        """
        return None


class CallbackSpec(Component):
    """Training callback: reads and changes what a step computes, and may provide the weights to evaluate with.

    Callbacks are listed in a spec under `training.callbacks` and called in that order. Their state is in the checkpoints, so
    a resumed run computes the same numbers as an uninterrupted one. For metrics alone, use a `tracker`, whose failure does
    not end the training.
    """

    kind: ClassVar[str] = "callback"
    runtime: ClassVar[str] = "gptkit.kinds.callback:Callback"

    @property
    def n_warmup_steps(self) -> int:
        """Number of steps of its warmup; `gptkit check` warns of a training that ends within it. 0 by default."""
        return 0

    @abstractmethod
    def build(self) -> Callback:
        """Return the callback of one training."""
