"""Tracker `csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Literal

from pydantic import Field, field_validator

from gptkit.core.atomic import write_bytes, writing
from gptkit.core.errors import FileError
from gptkit.kinds.tracker import Tracker, TrackerSpec, TrainingStart

__all__ = ["CSVSpec", "CSVTracker"]

_RUN = (
    "spec.yaml",
    "provenance.json",
    "metrics.jsonl",
    "samples.txt",
    "loss.png",
    "training.html",
    "summary.json",
    "tokenizer",
    "data",
    "checkpoints",
)


class CSVSpec(TrackerSpec):
    """CSV table of the metrics, one row per step.

    Notes:
        A metric that first appears at a later step adds a column; missing values are empty.
    """

    name: Literal["csv"] = "csv"
    file: str = Field("metrics.csv", min_length=1, description="Path of the table inside the run directory, relative to it.")

    @field_validator("file")
    @classmethod
    def _in_the_run(cls, value: str) -> str:
        path = PurePath(value)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError("must be a path inside the run directory, such as metrics.csv")
        if path.parts[0] in _RUN:
            raise ValueError(f"{path.parts[0]} is reserved for files of the run; choose another name")
        return path.as_posix()

    def files(self) -> tuple[str, ...]:
        return (self.file,)

    def build(self) -> Tracker:
        return CSVTracker(Path(self.file))


class CSVTracker(Tracker):
    """Writer of a table that is complete on disk after every row.

    Args:
        file: path of the table, relative to the run directory.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.columns = ["step"]

    def on_start(self, start: TrainingStart) -> None:
        self.file = start.directory / self.file
        if self.file.exists() and not self._is_table():
            raise FileError(f"{self.file} is not a table of this tracker, so it is not replaced", hint="Move it.")
        # Rows after the step that the training continues from will be written again.
        kept = [row for row in self._read() if int(row["step"]) <= start.step] if start.step else []
        self._write(kept)

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        row = {"step": str(step), **{name: repr(value) for name, value in metrics.items()}}
        if set(row) <= set(self.columns):
            with writing(self.file), self.file.open("a", newline="", encoding="utf-8") as stream:
                csv.DictWriter(stream, self.columns).writerow(row)
        else:
            self._write([*self._read(), row])

    def _is_table(self) -> bool:
        with self.file.open(newline="", encoding="utf-8", errors="replace") as stream:
            return stream.readline().rstrip("\r\n").split(",")[0] == "step"

    def _read(self) -> list[dict[str, str]]:
        if not self.file.exists():
            return []
        with self.file.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def _write(self, rows: Iterable[Mapping[str, str]]) -> None:
        rows = list(rows)
        self.columns = list(dict.fromkeys(["step", *(name for row in rows for name in row)]))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_bytes(self.file, text.getvalue().encode())
