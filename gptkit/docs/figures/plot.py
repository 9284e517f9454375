"""Plots: lines, areas, bars and points over an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from gptkit.docs.figures import elements
from gptkit.docs.figures.figure import SMALL
from gptkit.docs.figures.scale import Scale

__all__ = ["Plot", "Series"]

WIDTH, HEIGHT = 340.0, 220.0


@dataclass(frozen=True)
class Series:
    """Values of one color.

    Attributes:
        points: pairs (x, y) in the order of x.
        label: its name in the legend; none if empty.
        color: 1 to 4, or 0 for a faint one.
        form: a line, a dashed line, the area below a line, bars, outlined bars, points, or points on stems.
    """

    points: Sequence[tuple[float, float]]
    label: str = ""
    color: int = 1
    form: Literal["line", "dashed", "area", "bars", "outline", "points"] = "line"


@dataclass(frozen=True)
class Plot:
    """Plot of some series.

    Attributes:
        names: names of the values 0, 1, … of x, in place of numbers.
        zero: whether the axis of y includes 0.
        marks: values of x with a faint vertical line, and their names.
    """

    title: str
    x: str
    y: str
    series: Sequence[Series]
    description: str = ""
    log_y: bool = False
    log_x: bool = False
    zero: bool = True
    names: Sequence[str] = ()
    y_range: tuple[float, float] | None = None
    marks: Sequence[tuple[float, str]] = field(default=())

    def draw(self, key: str) -> str:
        """Return the plot with its axes and the legend."""
        labelled = [series for series in self.series if series.label]
        right, top, bottom = WIDTH - 8, 10.0, HEIGHT - 36
        _, y_scale = self._scales(0, right, top, bottom)
        left = (28.0 if self.y else 10.0) + 6.4 * max((len(elements.tick(value)) for value in y_scale.ticks()), default=1)
        rows = _legend_rows(labelled, right - left)
        x_scale, y_scale = self._scales(left, right, top, bottom)
        parts = self._axes(x_scale, y_scale, left, right, top, bottom)
        for series in self.series:
            parts += _marks(series, x_scale, y_scale, self._bar_width(x_scale))
        for row, entries in enumerate(rows):
            at, y = left, HEIGHT + 12 + 17 * row
            for series, width in entries:
                parts += _sample(series, at, y)
                parts.append(elements.text(at + 21, y, series.label))
                at += width
        height = HEIGHT + 17 * len(rows) + (2 if rows else 0)
        return elements.drawing(WIDTH, height, parts, title=self.title, description=self.description, key=key)

    def small(self) -> str:
        """Return the marks alone."""
        width, height = SMALL
        x_scale, y_scale = self._scales(4, width - 4, 5, height - 5)
        parts = []
        if y_scale.low < 0 < y_scale.high and not self.log_y:
            parts.append(elements.line(4, y_scale(0), width - 4, y_scale(0), "fg-axis"))
        for series in self.series:
            parts += _marks(series, x_scale, y_scale, self._bar_width(x_scale))
        return elements.drawing(width, height, parts)

    def _scales(self, left: float, right: float, top: float, bottom: float) -> tuple[Scale, Scale]:
        points = [point for series in self.series for point in series.points]
        barred = any(series.form in ("bars", "outline") for series in self.series)
        across = [x for x, _ in points] + [x for x, _ in self.marks]
        if barred and len(across) > 1:
            half = (max(across) - min(across)) / max(len(set(across)) - 1, 1) / 2
            across += [min(across) - half, max(across) + half]
        x_scale = Scale.around(across, left, right, log=self.log_x)
        if self.y_range is not None:
            return x_scale, Scale(*self.y_range, bottom, top)
        return x_scale, Scale.around([y for _, y in points], bottom, top, log=self.log_y, zero=self.zero, margin=0.05)

    def _bar_width(self, x_scale: Scale) -> float:
        across = sorted({x for series in self.series if series.form in ("bars", "outline") for x, _ in series.points})
        if len(across) < 2:
            return 12.0
        return 0.82 * min(abs(x_scale(b) - x_scale(a)) for a, b in pairwise(across))

    def _axes(self, x_scale: Scale, y_scale: Scale, left: float, right: float, top: float, bottom: float) -> list[str]:
        parts = []
        for value in y_scale.ticks():
            parts.append(elements.line(left, y_scale(value), right, y_scale(value), "fg-grid"))
            parts.append(elements.text(left - 6, y_scale(value) + 4, elements.tick(value), "fg-t fg-end"))
        base = y_scale(0) if not self.log_y and y_scale.low < 0 < y_scale.high else bottom
        parts.append(elements.line(left, base, right, base, "fg-axis"))
        for value, name in self.marks:
            parts.append(elements.line(x_scale(value), top, x_scale(value), bottom, "fg-mark"))
            parts.append(elements.text(x_scale(value) + 4, top + 10, name, "fg-t"))
        if self.names:
            size = "fg-t fg-mid" if len(self.names) <= 14 else "fg-t fg-mid fg-tiny"
            for index, name in enumerate(self.names):
                parts.append(elements.text(x_scale(index), bottom + 15, name, size))
        else:
            for value in x_scale.ticks(5):
                parts.append(elements.text(x_scale(value), bottom + 15, elements.tick(value), "fg-t fg-mid"))
        parts.append(elements.text((left + right) / 2, bottom + 32, self.x, "fg-t fg-mid"))
        if self.y:
            turn = f"rotate(-90 10 {elements.number((top + bottom) / 2)})"
            parts.append(elements.text(10, (top + bottom) / 2, self.y, "fg-t fg-mid", transform=turn))
        return parts


def _marks(series: Series, x_scale: Scale, y_scale: Scale, bar_width: float) -> list[str]:
    placed = [(x_scale(x), y_scale(min(max(y, y_scale.low), y_scale.high))) for x, y in series.points if math.isfinite(y)]
    if not placed:
        return []
    floor = y_scale(max(y_scale.low, 0.0) if y_scale.low <= 0 or y_scale.log is False else y_scale.low)
    color = f"fg-{series.color}"
    match series.form:
        case "line":
            return [elements.path(placed, f"fg-l {color}")]
        case "dashed":
            return [elements.path(placed, f"fg-l fg-dash {color}")]
        case "area":
            outline = [(placed[0][0], floor), *placed, (placed[-1][0], floor)]
            return [elements.path(outline, f"fg-a {color}", closed=True), elements.path(placed, f"fg-l {color}")]
        case "points":
            dots = "".join(f"M{elements.number(x)} {elements.number(y)}h0" for x, y in placed)
            return [f'<path class="fg-p {color}" d="{dots}"/>']
        case "bars":
            return [
                elements.rect(x - bar_width / 2, min(y, floor), bar_width, abs(floor - y), f"fg-b {color}")
                for x, y in placed
            ]
        case "outline":
            return [
                elements.rect(x - bar_width / 2, min(y, floor), bar_width, abs(floor - y), f"fg-o {color}")
                for x, y in placed
            ]


def _sample(series: Series, x: float, y: float) -> list[str]:
    color = f"fg-{series.color}"
    if series.form in ("bars", "area"):
        return [elements.rect(x + 3, y - 9, 11, 10, f"fg-b {color}")]
    if series.form == "outline":
        return [elements.rect(x + 3, y - 9, 11, 10, f"fg-o {color}")]
    if series.form == "points":
        return [f'<path class="fg-p {color}" d="M{elements.number(x + 8)} {elements.number(y - 4)}h0"/>']
    return [elements.line(x, y - 4, x + 16, y - 4, f"fg-l {color}{' fg-dash' if series.form == 'dashed' else ''}")]


def _legend_rows(labelled: Sequence[Series], room: float) -> list[list[tuple[Series, float]]]:
    rows: list[list[tuple[Series, float]]] = []
    used = room + 1
    for series in labelled:
        width = 34 + 6.3 * len(series.label)
        if used + width > room + 12:
            rows.append([])
            used = 0
        rows[-1].append((series, width))
        used += width
    return rows
