"""Tracker `tensorboard`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

import gptkit
from gptkit.kinds.tracker import Tracker, TrackerSpec, TrainingStart

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoardSpec", "TensorBoardTracker"]


class TensorBoardSpec(TrackerSpec):
    """TensorBoard's event files with metrics, samples and the spec; shown by ``tensorboard --logdir runs``.

    Notes:
        Training and validation loss share a chart, every other metric has its own. After a resume the curves continue
        from the checkpoint: earlier values after it are hidden.
    """

    name: Literal["tensorboard"] = "tensorboard"
    directory: str = Field(
        "tensorboard", min_length=1, description="Directory of the event files, relative to the run directory."
    )
    samples: bool = Field(True, description="Record the samples generated during training.")
    flush_seconds: int = Field(10, ge=1, description="Maximum number of seconds before metrics are written to disk.")

    def build(self) -> Tracker:
        return TensorBoardTracker(self)


class TensorBoardTracker(Tracker):
    """Runtime part of `TensorBoardSpec`."""

    def __init__(self, spec: TensorBoardSpec) -> None:
        self.spec = spec
        self._writer: SummaryWriter | None = None

    def on_start(self, start: TrainingStart) -> None:
        # Imported where it is used, since the import takes a second.
        from torch.utils.tensorboard import SummaryWriter

        directory: Path = start.directory / self.spec.directory
        # Steps after the resumed one will be recorded again.
        purge = start.step + 1 if start.step else None
        self._writer = SummaryWriter(str(directory), purge_step=purge, flush_secs=self.spec.flush_seconds)
        self._writer.add_text("spec", _fenced(json.dumps(start.spec, indent=2, ensure_ascii=False), "json"), start.step)

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(_tag(name), value, step)

    def on_sample(self, step: int, text: str) -> None:
        if self._writer is not None and self.spec.samples:
            self._writer.add_text("sample", _fenced(text), step)

    def on_end(self, step: int, error: BaseException | None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _tag(name: str) -> str:
    """Return the tag of a metric. TensorBoard groups charts by the part before the slash: ``loss/validation``."""
    if name == "loss":
        return "loss/training"
    if name.startswith("validation_"):
        return f"{name.removeprefix('validation_')}/validation"
    return f"training/{name}"


def _fenced(text: str, language: str = "") -> str:
    """Return Markdown that shows the text unchanged."""
    runs = [len(run) for run in "".join(c if c == "`" else " " for c in text).split()]
    fence = "`" * max(3, *(length + 1 for length in [0, *runs]))
    return f"{fence}{language}\n{text}\n{fence}"


@gptkit.hookimpl
def gptkit_components() -> list[type[TrackerSpec]]:
    return [TensorBoardSpec]
