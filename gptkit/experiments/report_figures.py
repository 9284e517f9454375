"""Figures of a report as SVG and PNG. Imports matplotlib, so import this late.

Equal content gives equal files: no date, no random ids, no fonts of the system.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from gptkit.core.atomic import write_bytes

__all__ = ["COLORS", "axes_of", "new_figure", "save_figure", "write_figures"]

COLORS = ("#3f6fd8", "#d9822b", "#2a9d6f", "#c2477f", "#8a63d2", "#8f6b3d", "#1f9bb5", "#7a8290")
"""Colors of lines, as on the page."""

_INK, _FAINT, _GOOD, _BAD, _NEUTRAL = "#2D3748", "#E2E8F0", "#146c3a", "#b3261e", "#7a8290"
_SETTINGS: Any = {"svg.hashsalt": "gptkit", "svg.fonttype": "path", "font.family": "DejaVu Sans", "font.size": 9.5}


def write_figures(data: Mapping[str, Any], directory: Path) -> dict[str, Path]:
    """Write each figure that the content has as ``NAME.svg`` and ``NAME.png``.

    Args:
        data: content of a report, of `report_data`.
        directory: where to write.

    Returns:
        The SVG files by name.

    Raises:
        FileError: a file cannot be written.
    """
    drawn: dict[str, Callable[[Mapping[str, Any]], Figure]] = {}
    if any(effect["mean"] is not None for effect in data["effects"]):
        drawn["effects"] = _effects
    if any(curve["validation"] for curve in data["curves"]):
        drawn["loss"] = _loss
    if any(each["points"] for each in data["positions"]):
        drawn["positions"] = _positions
    if data["rates"]:
        drawn["rates"] = _rates
    return {name: save_figure(partial(draw, data), directory / name) for name, draw in drawn.items()}


def save_figure(draw: Callable[[], Figure], stem: Path) -> Path:
    """Draw a figure and write it as SVG and PNG; return the SVG file.

    Args:
        draw: function that returns the figure.
        stem: the file without its suffix.
    """
    # Settings apply while text and ids are created and while they are written.
    with matplotlib.rc_context(_SETTINGS):
        figure = draw()
        for suffix, metadata in ((".svg", {"Date": None, "Creator": None}), (".png", {"Software": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix[1:], facecolor="white", metadata=metadata)
            write_bytes(stem.with_name(stem.name + suffix), buffer.getvalue())
    return stem.with_name(stem.name + ".svg")


def new_figure(height: float = 4.2) -> Figure:
    """Return an empty figure of the common width."""
    figure = Figure(figsize=(8, height), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def axes_of(figure: Figure, x: str, y: str) -> Any:
    """Add axes without a frame to a figure, with a faint grid."""
    axes = figure.add_subplot()
    axes.set_xlabel(x, color=_INK)
    axes.set_ylabel(y, color=_INK)
    axes.set_axisbelow(True)
    axes.grid(color=_FAINT, linewidth=0.8)
    axes.tick_params(colors=_INK, length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    return axes


def _lines(
    figure: Figure,
    axes: Any,
    lines: Sequence[tuple[str, Sequence[Sequence[float]]]],
    ceiling: float | None = None,
    **style: Any,
) -> None:
    """Draw lines with bands and a legend below them: points are x, mean, lowest and highest value."""
    for index, (label, points) in enumerate(lines):
        if points:
            x, mean, low, high = zip(*points, strict=True)
            color = COLORS[index % len(COLORS)]
            dashes = ("-", "--", ":")[index // len(COLORS) % 3]
            axes.plot(x, mean, label=label, color=color, linewidth=1.6, linestyle=dashes, **style)
            axes.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0)
    if ceiling is not None:
        lowest = min(point[2] for _, points in lines for point in points)
        margin = 0.05 * (ceiling - lowest) or 0.01 * ceiling
        axes.set_ylim(lowest - margin, ceiling + margin)
    columns = 2 if max((len(label) for label, _ in lines), default=0) > 28 else 3
    rows = -(-len(lines) // columns)
    figure.set_figheight(figure.get_figheight() + 0.22 * rows)
    figure.legend(loc="outside lower left", ncols=columns, frameon=False, labelcolor=_INK, fontsize=8.5)


def _loss(data: Mapping[str, Any]) -> Figure:
    figure = new_figure()
    axes = axes_of(figure, "step", "validation loss (nats per token)")
    curves = [(curve["label"], [(p[0], p[2], p[3], p[4]) for p in curve["validation"]]) for curve in data["curves"]]
    _lines(figure, axes, curves, data["ceilings"]["validation"], marker="o", markersize=3)
    return figure


def _positions(data: Mapping[str, Any]) -> Figure:
    figure = new_figure()
    axes = axes_of(figure, "position in the context", "mean loss (nats per token)")
    if data["trained_length"] is not None:
        axes.axvline(data["trained_length"] - 0.5, color=_NEUTRAL, linewidth=1, linestyle=(0, (4, 3)))
    _lines(figure, axes, [(each["label"], each["points"]) for each in data["positions"]], data["ceilings"]["positions"])
    return figure


def _rates(data: Mapping[str, Any]) -> Figure:
    figure = new_figure()
    axes = axes_of(figure, "learning rate", data["measure"]["title"])
    axes.set_xscale("log")
    axes.set_xticks(sorted({point[0] for each in data["rates"] for point in each["points"]}))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    _lines(figure, axes, [(each["label"], each["points"]) for each in data["rates"]], marker="o", markersize=3)
    return figure


def _effects(data: Mapping[str, Any]) -> Figure:
    shown = [effect for effect in data["effects"] if effect["mean"] is not None]
    figure = new_figure(1.0 + 0.42 * len(shown))
    axes = axes_of(figure, f"difference in {data['measure']['title']} (left of zero is better)", "")
    axes.axvline(0, color=_INK, linewidth=1)
    for row, effect in enumerate(shown):
        color = {"better": _GOOD, "worse": _BAD}.get(effect["verdict"], _NEUTRAL)
        if effect["low"] is not None:
            axes.plot([effect["low"], effect["high"]], [row, row], color=color, linewidth=2, solid_capstyle="butt")
        axes.plot([effect["mean"]], [row], marker="o", color=color, markersize=5)
    axes.set_yticks(range(len(shown)))
    axes.set_yticklabels([f"{effect['axis']}\n{effect['value']} instead of {effect['baseline']}" for effect in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    return figure
