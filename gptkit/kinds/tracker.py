"""Kind `tracker`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from gptkit.spec import Component

__all__ = ["Tracker", "TrackerSpec", "TrainingStart"]


@dataclass(frozen=True)
class TrainingStart:
    """What trackers are told when a training starts or resumes.

    Attributes:
        folder: the run's folder.
        step: the first step that will be taken; above 0 after a resume.
        steps: the last step's number plus one.
        spec: the resolved spec as plain data.
    """

    folder: Path
    step: int
    steps: int
    spec: Mapping[str, Any] = field(repr=False)


class Tracker(ABC):
    """Watches a training. Every method does nothing by default; an exception is reported and stops only the tracker."""

    def on_start(self, start: TrainingStart) -> None:
        """Before the first step."""

    @abstractmethod
    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers after a step: `loss`, `learning_rate`, `tokens_per_second`, `validation_loss`, …"""

    def on_sample(self, step: int, text: str) -> None:
        """A sample of text that the model wrote."""

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """A checkpoint is complete on disk."""

    def on_end(self, step: int, error: BaseException | None) -> None:
        """After the last step, or when training stopped early (`error`, KeyboardInterrupt included)."""


class TrackerSpec(Component):
    """Where a training's numbers go, besides the run's own metrics.jsonl and loss.png."""

    kind: ClassVar[str] = "tracker"

    @abstractmethod
    def build(self) -> Tracker:
        """The tracker of one training."""
