"""Page with the runs of a directory: a table, and their curves in common charts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptkit.pages.page import page
from gptkit.runs.listing import ListedRun
from gptkit.training.series import Series

__all__ = ["listing_data", "listing_page"]

_CURVES = ("validation_loss", "loss", "validation_bits_per_byte", "grad_norm", "tokens_per_second")


def listing_data(runs: Sequence[ListedRun]) -> list[dict[str, Any]]:
    """Return the runs as plain data."""
    return [
        {
            "run": str(run.path),
            "name": run.name,
            **{name: value if value is None or math.isfinite(value) else None for name, value in run.numbers().items()},
            "spec": dict(run.choices),
            "problem": run.problem,
        }
        for run in runs
    ]


def listing_page(directory: Path, runs: Sequence[ListedRun]) -> str:
    """Return the page.

    Args:
        directory: the directory of the runs.
        runs: the runs, in the order of the table.
    """
    curves = [{name: _reduced(run, name) for name in _CURVES} | {"tokens": _reduced(run, "tokens")} for run in runs]
    data = {"directory": str(directory), "runs": listing_data(runs), "curves": curves}
    return page(f"Runs in {directory}", ["common.js", "chart.js", "runs.js"], data)


def _reduced(run: ListedRun, name: str) -> list[tuple[int, float]]:
    series = Series(500)
    for step, value in run.metrics.points(name):
        if math.isfinite(value):
            series.add(step, value)
    return series.points()
