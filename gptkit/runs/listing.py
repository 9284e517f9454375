"""List of the runs in a directory: their progress, losses, and what their specs differ in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptkit.core.diff import ABSENT, differences
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.reflect.snippets import flow, plain
from gptkit.runs.directory import RunDirectory
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.metrics import Metrics

__all__ = ["ListedRun", "find_runs", "list_runs"]

_DEPTH = 5
"""Levels of directories that are searched."""

_UNINTERESTING = ("name",)
"""Fields that differ without a meaning for results."""


@dataclass(frozen=True)
class ListedRun:
    """A run in a list.

    Attributes:
        path: the run directory.
        name: the name in the spec.
        metrics: the metrics as columns.
        steps: the number of steps in the spec; None if the spec cannot be read.
        choices: the fields of the spec that differ between the runs, with the value of this one as text.
        changed: time of the last line of metrics, in seconds since the epoch; None without metrics.
        problem: why the spec cannot be read, or None.
    """

    path: Path
    name: str
    metrics: Metrics
    steps: int | None
    choices: Mapping[str, str]
    changed: float | None
    problem: str | None

    @property
    def step(self) -> int:
        """The step of the last line of metrics."""
        return int(max(self.metrics.get("step", []), default=0))

    def last(self, name: str) -> float | None:
        """Return a metric as recorded last."""
        point = self.metrics.last(name)
        return None if point is None else point[1]

    def lowest(self, name: str) -> float | None:
        """Return the lowest value of a metric."""
        point = self.metrics.best(name)
        return None if point is None else point[1]

    def numbers(self) -> dict[str, float | None]:
        """Return the numbers of the list, by name."""
        return {
            "step": self.step,
            "steps": self.steps,
            "loss": self.last("loss"),
            "validation_loss": self.last("validation_loss"),
            "lowest_validation_loss": self.lowest("validation_loss"),
            "validation_bits_per_byte": self.last("validation_bits_per_byte"),
            "tokens": self.last("tokens"),
            "tokens_per_second": self.last("tokens_per_second"),
        }


def find_runs(directory: Path) -> Iterator[RunDirectory]:
    """Yield the run directories in a directory, at most five levels deep, in the order of names; links are not followed.

    Raises:
        GptkitError: it is not a directory.
    """
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise GptkitError(f"{directory} {what}, and runs are listed of a directory", hint="Pass a directory such as runs.")
    for path, names, _ in os.walk(directory):
        run = RunDirectory(path)
        if run.holds_run:
            yield run
            names.clear()
            continue
        deep = len(Path(path).relative_to(directory).parts) >= _DEPTH
        names[:] = [] if deep else sorted(name for name in names if not name.startswith("."))


def list_runs(directory: Path, registry: Registry | None = None) -> list[ListedRun]:
    """Return the runs in a directory, those with the lowest validation loss first.

    Args:
        directory: the directory.
        registry: where components are looked up; by default what is installed.

    Raises:
        GptkitError: it is not a directory.
        FileError: a file may not be read.
    """
    runs = list(find_runs(directory))
    specs = [_read(run, registry) for run in runs]
    choices = _choices([spec for spec in specs if isinstance(spec, ExperimentSpec)])
    listed = []
    for run, spec in zip(runs, specs, strict=True):
        known = isinstance(spec, ExperimentSpec)
        listed.append(
            ListedRun(
                run.path,
                spec.name if isinstance(spec, ExperimentSpec) else run.path.name,
                Metrics.read(run.metrics),
                spec.training.steps if isinstance(spec, ExperimentSpec) else None,
                next(choices) if known else {},
                run.metrics.stat().st_mtime if run.metrics.is_file() else None,
                None if isinstance(spec, ExperimentSpec) else spec,
            )
        )

    def order(run: ListedRun) -> tuple[bool, float, str]:
        lowest = run.lowest("validation_loss")
        return lowest is None, lowest or 0.0, str(run.path)

    return sorted(listed, key=order)


def _read(run: RunDirectory, registry: Registry | None) -> ExperimentSpec | str:
    """Return the spec of a run, or why it cannot be read."""
    try:
        return run.read_spec(registry)
    except GptkitError as error:
        return error.message


def _choices(specs: list[ExperimentSpec]) -> Iterator[dict[str, str]]:
    """Yield for each spec the values of the fields that differ between any of them."""
    changed: dict[str, dict[int, Any]] = {}
    for index, spec in enumerate(specs):
        for difference in differences(specs[0], spec):
            values = changed.setdefault(difference.dotted, {0: difference.left})
            values[index] = difference.right
    for name in _UNINTERESTING:
        changed.pop(name, None)
    for index in range(len(specs)):
        # A spec that does not differ from the first one has its value.
        yield {name: _shown(values.get(index, values[0])) for name, values in changed.items()}


def _shown(value: Any) -> str:
    return "–" if value is ABSENT else flow(plain(value))
