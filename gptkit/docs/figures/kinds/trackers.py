"""Trackers: the metrics of a short training, and the files that the tracker has written of them."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import cast

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.docs.figures.figure import Figure, Panel
from gptkit.docs.figures.files import Files, written_files
from gptkit.docs.figures.plot import Plot, Series
from gptkit.docs.figures.subjects import first
from gptkit.kinds.tracker import TrackerSpec, TrainingStart

__all__ = ["draw"]

STEPS, EVERY = 40, 10
_LINES = 6


def draw(cls: type[Component], registry: Registry) -> Figure:
    """Return what a tracker receives, and what it writes."""
    tracker = cast("TrackerSpec", first(cls, registry).spec).build()
    losses, validation = [], []
    with tempfile.TemporaryDirectory(prefix="gptkit-docs-") as scratch:
        directory = Path(scratch)
        tracker.on_start(TrainingStart(directory, 0, STEPS, {"name": "example", "model": {"d_model": 32}}))
        for step in range(1, STEPS + 1):
            loss = round(1.6 + 2.4 * math.exp(-step / 9) + 0.1 * math.sin(2.7 * step), 3)
            metrics = {"loss": loss, "learning_rate": 0.001}
            losses.append((step, loss))
            if step % EVERY == 0:
                metrics["validation_loss"] = round(loss + 0.1, 3)
                validation.append((step, metrics["validation_loss"]))
            tracker.on_metrics(step, metrics)
        tracker.on_end(STEPS, None)
        files = written_files(directory, _LINES)
    panels: list[Panel] = []
    described = f"{STEPS} steps, with a validation loss every {EVERY}."
    if files:
        listed = ", ".join(file.name for file in files)
        panels.append(Files("what it has written", files, f"Files in the run directory: {listed}."))
    series = [Series(losses, "loss", 1), Series(validation, "validation_loss", 2, "points")]
    panels.append(Plot("metrics that it receives", "step", "", series, described))
    return Figure(panels, f"A training of {STEPS} steps with made-up losses, and the tracker's files in its run directory.")
