"""The page of a training: its metrics as curves, in one file that reloads itself while the training runs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path

from gptkit.core.atomic import write_text
from gptkit.kinds.callback import Callback
from gptkit.kinds.tracker import TrainingStart
from gptkit.pages.page import page
from gptkit.training.records import read_metrics
from gptkit.training.series import Series

__all__ = ["TrainingPage"]

_log = logging.getLogger("gptkit")

_INTERVAL = 5.0
"""Seconds between two versions of the page."""


class TrainingPage(Callback):
    """HTML page with the metrics of a training, written every few seconds; a failure does not end the training.

    Args:
        metrics: the run's metrics.jsonl, as it is when the training starts.
        file: the page.
        title: the title of the page.
        interval: minimum number of seconds between two versions.
    """

    def __init__(self, metrics: Path, file: Path, title: str = "", *, interval: float = _INTERVAL) -> None:
        self._metrics, self._file, self._title, self._interval = metrics, file, title, interval
        self._series: dict[str, Series] = {}
        self._step, self._steps = 0, 0
        self._began_at, self._began = time.monotonic(), 0
        self._written = -math.inf

    def on_start(self, start: TrainingStart) -> None:
        self._steps, self._step = start.steps, start.step
        self._began_at, self._began = time.monotonic(), start.step
        for line in read_metrics(self._metrics):
            self._add(int(line["step"]), line)

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self._step = step
        self._add(step, metrics)
        if time.monotonic() - self._written >= self._interval:
            self._write("running")

    def on_end(self, step: int, error: BaseException | None) -> None:
        self._step = step
        self._write("done" if error is None else "stopped")

    def _add(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if name != "step" and math.isfinite(value):
                self._series.setdefault(name, Series()).add(step, value)

    def _write(self, state: str) -> None:
        done = self._step - self._began
        per_step = (time.monotonic() - self._began_at) / done if done else None
        data = {
            "title": self._title,
            "state": state,
            "step": self._step,
            "steps": self._steps,
            "seconds_left": None if per_step is None else per_step * (self._steps - self._step),
            "refresh": self._interval,
            "series": {name: series.points() for name, series in self._series.items()},
        }
        try:
            write_text(self._file, page(f"{self._title}: training", ["common.js", "chart.js", "training.js"], data))
        except Exception as error:
            _log.warning("%s cannot be written: %s: %s", self._file, type(error).__name__, error)
        self._written = time.monotonic()
