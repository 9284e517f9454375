"""The metrics of a training as columns."""

from __future__ import annotations

import math
from pathlib import Path

from gptkit.core import html
from gptkit.training.records import read_metrics

__all__ = ["Metrics"]

_SHOWN = 8


class Metrics(dict[str, list[float]]):
    """Metrics by column, one row for each step with a metric: ``metrics["loss"]`` belongs to ``metrics["step"]``.

    A metric that a step does not have is NaN. A dictionary of lists, so that ``pandas.DataFrame(run.metrics)`` and
    ``polars.DataFrame(run.metrics)`` are tables of it.
    """

    @classmethod
    def read(cls, path: Path) -> Metrics:
        """Read the metrics of a run's metrics.jsonl; without columns if it is empty."""
        rows: dict[int, dict[str, float]] = {}
        for line in read_metrics(path):
            rows.setdefault(int(line["step"]), {}).update(line)
        names = dict.fromkeys(name for row in rows.values() for name in row)
        return cls({name: [row.get(name, math.nan) for row in rows.values()] for name in names})

    def points(self, name: str) -> list[tuple[int, float]]:
        """Return the steps that have a metric, and its values; empty for an unknown metric."""
        steps = self.get("step", [])
        return [(int(step), value) for step, value in zip(steps, self.get(name, []), strict=False) if not math.isnan(value)]

    def last(self, name: str) -> tuple[int, float] | None:
        """Return the last step that has a metric, and its value."""
        return max(self.points(name), default=None)

    def best(self, name: str) -> tuple[int, float] | None:
        """Return the step with the lowest value of a metric, such as a loss, and that value."""
        return min(self.points(name), key=lambda point: point[1], default=None)

    def __repr__(self) -> str:
        rows = len(self.get("step", []))
        return f"<Metrics of {rows} steps: {', '.join(self) or 'none'}>"

    def _repr_html_(self) -> str:
        """Return the last rows for a notebook."""
        rows = list(zip(*self.values(), strict=True))
        omitted = max(0, len(rows) - _SHOWN)
        shown = [["" if math.isnan(value) else f"{value:g}" for value in row] for row in rows[-_SHOWN:]]
        title = html.heading("Metrics", f"last {len(shown)} of {len(rows)} steps" if omitted else f"{len(rows)} steps")
        return title + html.table(shown, list(self))
