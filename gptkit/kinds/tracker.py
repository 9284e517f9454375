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
        directory: the run's directory.
        step: how many steps are done already; above 0 after a resume.
        steps: how many there will be in all.
        spec: the resolved spec as plain data.
    """

    directory: Path
    step: int
    steps: int
    spec: Mapping[str, Any] = field(repr=False)


class Tracker(ABC):
    """Watches a training. Every method does nothing by default; an exception is reported and stops only the tracker.

    A `step` counts the steps done so far: what happens before the first has step 0. After a resume the steps since the
    last checkpoint come again, with the same numbers.
    """

    def on_start(self, start: TrainingStart) -> None:
        """Before the first step."""

    @abstractmethod
    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers after a step: `loss`, `learning_rate`, `tokens_per_second`, `validation_loss`, …"""

    def on_sample(self, step: int, text: str) -> None:
        """Record a sample of generated text."""

    def on_checkpoint(self, step: int, directory: Path) -> None:
        """A checkpoint is complete on disk."""

    def on_end(self, step: int, error: BaseException | None) -> None:
        """After the last step, or when training stopped early (`error`, KeyboardInterrupt included)."""


class TrackerSpec(Component):
    """Where a training's numbers go, besides the run's own metrics.jsonl and loss.png."""

    kind: ClassVar[str] = "tracker"

    def files(self) -> tuple[str, ...]:
        """Files that the tracker writes in the run directory, relative to it; none by default.

        They are the run's own: a training refuses to begin where another file has such a name, and ``--overwrite`` replaces
        them with the rest of the run.
        """
        return ()

    @abstractmethod
    def build(self) -> Tracker:
        """The tracker of one training."""
