"""Tracker `csv`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from gptkit.kinds.tracker import Tracker, TrackerSpec, TrainingStart

__all__ = ["CSVSpec", "CSVTracker"]


class CSVSpec(TrackerSpec):
    """Writes the numbers into a table that a spreadsheet opens, one row a step.

    Notes:
        A number that first turns up later gets a column then; a cell without a number stays empty.
    """

    name: Literal["csv"] = "csv"
    file: str = Field("metrics.csv", min_length=1, description="The table's path; relative to the run's folder.")

    def build(self) -> Tracker:
        return CSVTracker(Path(self.file))


class CSVTracker(Tracker):
    """The table is whole on disk after every row."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.columns = ["step"]

    def on_start(self, start: TrainingStart) -> None:
        self.file = start.folder / self.file
        # What was written after the step that the training goes on from will be written again.
        kept = [row for row in self._read() if int(row["step"]) <= start.step] if start.step else []
        self._write(kept)

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        row = {"step": str(step), **{name: repr(value) for name, value in metrics.items()}}
        if set(row) <= set(self.columns):
            with self.file.open("a", newline="", encoding="utf-8") as stream:
                csv.DictWriter(stream, self.columns).writerow(row)
        else:
            self._write([*self._read(), row])

    def _read(self) -> list[dict[str, str]]:
        if not self.file.exists():
            return []
        with self.file.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def _write(self, rows: Iterable[Mapping[str, str]]) -> None:
        rows = list(rows)
        self.columns = list(dict.fromkeys(["step", *(name for row in rows for name in row)]))
        with self.file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, self.columns)
            writer.writeheader()
            writer.writerows(rows)
