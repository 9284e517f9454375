"""Kind `tracker`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from gptkit.core.component import Component

__all__ = ["Tracker", "TrackerSpec", "TrainingStart"]


@dataclass(frozen=True)
class TrainingStart:
    """Information that trackers receive when training starts or resumes.

    Attributes:
        directory: the run directory.
        step: number of completed steps; above 0 after a resume.
        steps: total number of steps.
        spec: the resolved spec as plain data.
    """

    directory: Path
    step: int
    steps: int
    spec: Mapping[str, Any] = field(repr=False)


class Tracker(ABC):
    """Base class of trackers. Every method does nothing by default; an exception is reported and stops only the tracker.

    After an exception only `on_end` is called, with it. A `step` is the number of completed steps, 0 before the first. After
    a resume, the steps since the last checkpoint are reported again, with the same numbers.
    """

    def on_start(self, start: TrainingStart) -> None:
        """Called before the first step."""

    @abstractmethod
    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record numbers of a step: `loss`, `learning_rate`, `tokens_per_second`, `validation_loss`, …"""

    def on_sample(self, step: int, text: str) -> None:
        """Record a sample of generated text."""

    def on_checkpoint(self, step: int, directory: Path) -> None:
        """Called after a checkpoint is complete on disk."""

    def on_end(self, step: int, error: BaseException | None) -> None:
        """Called after the last step, or with the error that ended the training (also KeyboardInterrupt) or this tracker."""


class TrackerSpec(Component):
    """Destination of a training's metrics, in addition to the run's metrics.jsonl and loss.png."""

    kind: ClassVar[str] = "tracker"

    def files(self) -> tuple[str, ...]:
        """Files that the tracker writes, relative to the run directory; none by default.

        They belong to the run: a training does not start if another file has such a name, and ``--overwrite`` replaces
        them with the rest of the run.
        """
        return ()

    @abstractmethod
    def build(self) -> Tracker:
        """Return the tracker of one training."""
