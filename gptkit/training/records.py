"""Records of a training in its run directory: metrics.jsonl, samples.txt and loss.png.

The page `training.html` and `summary.json` are in modules of their own.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gptkit.core.atomic import reading, writing
from gptkit.kinds.callback import Callback
from gptkit.kinds.tracker import TrainingStart

__all__ = ["LossPlot", "MetricsFile", "SamplesFile", "read_metrics"]

METRICS, SAMPLES, PLOT = "metrics.jsonl", "samples.txt", "loss.png"
_log = logging.getLogger("gptkit")


class _Growing(Callback):
    """Append-only file. A checkpoint holds its length, to which it is truncated when a training resumes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._length = 0

    def state_dict(self) -> dict[str, Any]:
        return {"length": self._length}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._length = int(state["length"])

    def on_start(self, start: TrainingStart) -> None:
        with writing(self.path), self.path.open("ab") as stream:
            # A file that is shorter than recorded was changed by the user: it is kept.
            stream.truncate(min(self._length, stream.tell()))
        self._length = self.path.stat().st_size

    def append(self, text: str) -> None:
        data = text.encode()
        with writing(self.path), self.path.open("ab") as stream:
            stream.write(data)
        self._length += len(data)


class MetricsFile(_Growing):
    """File of metrics: one JSON object per line with the step and its metrics."""

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.append(json.dumps({"step": step, **metrics}) + "\n")


class SamplesFile(_Growing):
    """File of samples, each below its step."""

    def on_sample(self, step: int, text: str) -> None:
        self.append(f"──── step {step} ────\n{text}\n\n")


class LossPlot(Callback):
    """Plot of the losses of a metrics file, drawn whenever a checkpoint is saved, and at the end."""

    def __init__(self, metrics: Path, picture: Path, title: str = "") -> None:
        self._metrics, self._picture, self._title = metrics, picture, title

    def on_checkpoint(self, step: int, directory: Path) -> None:
        # A failed plot (missing fonts or drawing library) must not stop training.
        try:
            from gptkit.training.plot import draw_losses

            draw_losses(list(read_metrics(self._metrics)), self._picture, title=self._title)
        except Exception as error:
            _log.warning("%s cannot be drawn: %s: %s", self._picture, type(error).__name__, error)


def read_metrics(path: Path) -> Iterator[dict[str, float]]:
    """Yield the lines of a metrics file. An incomplete last line is skipped; so are damaged lines, with a warning."""
    if not path.exists():
        return
    n_damaged = first = 0
    with reading(path), path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                break
            metrics = _metrics_of(line)
            if metrics is None:
                n_damaged, first = n_damaged + 1, first or number
            else:
                yield metrics
    if n_damaged:
        _warn(path, n_damaged, first)


@functools.cache
def _warn(path: Path, n_damaged: int, first: int) -> None:
    """Warn of damaged lines, once: a file of metrics is read whenever a plot or a page is written."""
    lines = "1 damaged line is" if n_damaged == 1 else f"{n_damaged} damaged lines are"
    _log.warning("%s: %s skipped, the first one in line %d", path, lines, first)


def _metrics_of(line: bytes) -> dict[str, float] | None:
    """Return the metrics of a line; None if it is not an object of numbers with a step."""
    try:
        metrics = json.loads(line)
        numbers = [float(value) for value in metrics.values() if isinstance(value, (int, float))]
        return metrics if len(numbers) == len(metrics) and type(metrics["step"]) is int else None
    except (ValueError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
