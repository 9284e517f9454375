"""Report of a ladder of sizes: a page, Markdown with a figure, and a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptkit.core.atomic import write_text
from gptkit.experiments.power_law import least_sizes
from gptkit.experiments.report import open_report
from gptkit.experiments.report_markdown import table_lines, text_of
from gptkit.experiments.scaling import Point, Scaling
from gptkit.experiments.statistics import LEVEL, estimate
from gptkit.experiments.tables import write_tables
from gptkit.pages.page import page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PAGE", "scaling_data", "statements", "write_scaling_report"]

PAGE = "scaling.html"
"""Name of the page in an experiment's directory."""

_GENERATOR = "<!-- written by gptkit scaling -->"
_UNITS = {"parameters": "parameters", "flops": "FLOPs per token"}
_CURVE = 80


def write_scaling_report(scaling: Scaling, directory: Path) -> Path:
    """Write ``scaling.html``, ``scaling.md``, and a directory ``scaling`` with the figure and the table.

    Args:
        scaling: the fitted ladder.
        directory: the experiment's directory.

    Returns:
        The page.

    Raises:
        GptkitError: a file with the name of the report was not written by gptkit.
        FileError: a file cannot be written.
    """
    from gptkit.experiments.report_figures import save_figure

    target, text, files = open_report(directory, PAGE, _GENERATOR)
    data = scaling_data(scaling)
    write_tables({"sizes": data["rows"]}, files)
    figure = save_figure(lambda: _figure(data), files / "scaling")
    write_text(text, "\n".join(_markdown(data, f"{files.name}/{figure.name}")).rstrip("\n") + "\n")
    write_text(target, page(f"{scaling.name}: scaling", ["common.js", "chart.js", "scaling.js"], data))
    return target


def scaling_data(scaling: Scaling) -> dict[str, Any]:
    """Return the content of the report as plain data."""
    points = [*scaling.ladder, scaling.target]
    low, high = min(point.x for point in points), max(point.x for point in points)
    xs = [low * (high / low) ** (index / (_CURVE - 1)) for index in range(_CURVE)]
    bands = [(x, scaling.fit.band(x)) for x in xs]
    law = scaling.fit.law
    return {
        "name": scaling.name,
        "command": scaling.command,
        "unit": _UNITS[scaling.by],
        "seeds": scaling.n_seeds,
        "tokens": list(scaling.tokens),
        "formula": formula(scaling),
        "law": {"floor": law.floor, "factor": law.factor, "exponent": law.exponent},
        "exponent_interval": scaling.fit.exponent_interval,
        "floor_interval": scaling.fit.floor_interval,
        "curve": [[x, law(x)] for x in xs],
        "band": [[x, *band] for x, band in bands if band is not None],
        "rows": [_row(point, scaling) for point in points],
        "target": scaling.target.label,
        "prediction": {
            "mean": scaling.prediction.mean,
            "low": scaling.prediction.low,
            "high": scaling.prediction.high,
            "measured": scaling.target.mean,
            "error": scaling.error,
            "covered": scaling.covered,
        },
        "statements": statements(scaling),
        "omitted": [f"{label}: {reason}" for label, reason in scaling.omitted.items()],
    }


def formula(scaling: Scaling) -> str:
    """Return the fitted law as text: ``1.7 + 406.4 · N^-0.34``."""
    law = scaling.fit.law
    floor = f"{law.floor:.4g} + " if scaling.fit.has_floor else ""
    return f"{floor}{law.factor:.4g} · N^-{law.exponent:.3f}"


def statements(scaling: Scaling) -> list[str]:
    """Return what was found, as sentences."""
    fit, prediction, target = scaling.fit, scaling.prediction, scaling.target
    result = [f"Fitted law: loss = {formula(scaling)}, where N is the number of {_UNITS[scaling.by]}."]
    if fit.exponent_interval is not None:
        text = f"{LEVEL:.0%} interval of the exponent: {fit.exponent_interval[0]:.3f} to {fit.exponent_interval[1]:.3f}"
        if fit.floor_interval is not None:
            text += f"; of the loss of an infinite size: {fit.floor_interval[0]:.3f} to {fit.floor_interval[1]:.3f}"
        result.append(f"{text}.")
    else:
        result.append(
            "Neither seeds nor residuals show how large the noise is, so intervals are unknown; add seeds or sizes."
        )
    text = f"Prediction for {target.label} ({target.x:.4g} {_UNITS[scaling.by]}): {prediction.mean:.4f}"
    if prediction.low is not None and prediction.high is not None:
        text += f", {LEVEL:.0%} interval {prediction.low:.4f} to {prediction.high:.4f}"
    result.append(f"{text}.")
    if target.mean is not None and scaling.error is not None:
        inside = {True: "inside the interval", False: "outside of the interval", None: "without an interval"}[
            scaling.covered
        ]
        result.append(f"Measured: {target.mean:.4f}, {inside}; the prediction is off by {scaling.error:+.2%}.")
    else:
        result.append("The predicted size was not trained; --check trains it and compares.")
    last = scaling.ladder[-1]
    if scaling.backtest is not None and last.mean is not None:
        off = scaling.backtest.mean / last.mean - 1
        without = ", too few to fit E," if fit.has_floor and len(scaling.ladder) - 1 < least_sizes(True) else ""
        result.append(
            f"Backtest: without {last.label}, the other sizes{without} predict {scaling.backtest.mean:.4f} for it; "
            f"measured: {last.mean:.4f} ({off:+.2%})."
        )
    if scaling.fit.law.factor == 0:
        result.append("The loss does not fall with the size in this range, so the law is a constant.")
    return result


def _row(point: Point, scaling: Scaling) -> dict[str, Any]:
    interval = estimate(point.losses) if point.losses else None
    return {
        "size": point.label,
        "fitted": point is not scaling.target,
        "parameters": point.parameters,
        "flops_per_token": point.flops_per_token,
        "x": point.x,
        "seeds": len(point.losses),
        "loss": None if interval is None else interval.mean,
        "half": None if interval is None else interval.half,
        "lowest": min(point.losses, default=None),
        "highest": max(point.losses, default=None),
        "law": scaling.fit.law(point.x),
    }


def _markdown(data: dict[str, Any], figure: str) -> Iterator[str]:
    yield from (_GENERATOR, "", f"# {text_of(data['name'])}: scaling", "")
    yield from (*(f"- {text_of(text)}" for text in data["statements"]), "", f"![Loss by size]({figure})", "")
    rows = [
        [
            row["size"] + ("" if row["fitted"] else " (predicted)"),
            f"{row['parameters']:,}",
            f"{row['flops_per_token']:.4g}",
            str(row["seeds"]),
            "" if row["loss"] is None else f"{row['loss']:.4f}" + ("" if row["half"] is None else f" ± {row['half']:.4f}"),
            f"{row['law']:.4f}",
        ]
        for row in data["rows"]
    ]
    yield from table_lines(["size", "parameters", "FLOPs/token", "seeds", "validation loss", "fitted law"], rows)
    yield from (f"- {text_of(text)}" for text in data["omitted"])
    yield from ("", "To repeat it:", "", "```text", *data["command"].splitlines(), "```")


def _figure(data: dict[str, Any]) -> Figure:
    from matplotlib.ticker import FuncFormatter, NullLocator

    from gptkit.experiments.report_figures import COLORS, axes_of, new_figure

    figure = new_figure()
    axes = axes_of(figure, data["unit"], "validation loss (nats per token)")
    axes.set_xscale("log")
    axes.plot(*zip(*data["curve"], strict=True), color=COLORS[0], linewidth=1.6, label="fitted law")
    if data["band"]:
        x, low, high = zip(*data["band"], strict=True)
        axes.fill_between(x, low, high, color=COLORS[0], alpha=0.16, linewidth=0)
    trained = [row for row in data["rows"] if row["fitted"]]
    axes.plot([row["x"] for row in trained], [row["loss"] for row in trained], "o", color=COLORS[0], label="trained")
    target, prediction = data["rows"][-1], data["prediction"]
    errors = None
    if prediction["low"] is not None:
        errors = [[prediction["mean"] - prediction["low"]], [prediction["high"] - prediction["mean"]]]
    axes.errorbar([target["x"]], [prediction["mean"]], yerr=errors, fmt="s", color=COLORS[1], capsize=3, label="predicted")
    if prediction["measured"] is not None:
        axes.plot([target["x"]], [prediction["measured"]], "x", color=COLORS[3], markersize=8, label="measured")
    axes.set_xticks([row["x"] for row in data["rows"]])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.legend(frameon=False)
    return figure


def _short(value: float) -> str:
    power = min(3, int(math.log10(value)) // 3) if value >= 1 else 0
    return f"{value / 1000**power:.3g}{('', 'k', 'M', 'G')[power]}"
