"""Strips: rows with colored runs along a common axis, such as requests over steps, or documents over tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gptkit.docs.figures import elements
from gptkit.docs.figures.figure import SMALL
from gptkit.docs.figures.scale import Scale

__all__ = ["Run", "Strips"]

WIDTH = 340.0
_ROW, _BAR = 19.0, 13.0


class Run(NamedTuple):
    """A part of a row, from `begin` up to `end`, in one of the colors 0 to 4."""

    begin: float
    end: float
    color: int


@dataclass(frozen=True)
class Strips:
    """Rows from top to bottom.

    Attributes:
        x: name of the axis.
        rows: the name of each row and its runs.
        legend: the names of colors.
    """

    title: str
    x: str
    rows: Sequence[tuple[str, Sequence[Run]]]
    description: str = ""
    legend: Mapping[int, str] = field(default_factory=dict)

    def draw(self, key: str) -> str:
        """Return the rows with their names, the axis and the legend."""
        left = 8.0 + 6.4 * max((len(name) for name, _ in self.rows), default=0)
        scale = self._scale(left, WIDTH - 8)
        parts = []
        for index, (name, runs) in enumerate(self.rows):
            top = 2 + index * _ROW
            if name:
                parts.append(elements.text(left - 6, top + _BAR - 2.5, name, "fg-t fg-end"))
            parts += self._bars(runs, scale, top, _BAR)
        bottom = 2 + len(self.rows) * _ROW
        parts.append(elements.line(left, bottom, WIDTH - 8, bottom, "fg-axis"))
        for value in scale.ticks(5):
            parts.append(elements.text(scale(value), bottom + 15, elements.tick(value), "fg-t fg-mid"))
        parts.append(elements.text((left + WIDTH - 8) / 2, bottom + 32, self.x, "fg-t fg-mid"))
        y, x = bottom + 52, left
        for color, name in self.legend.items():
            width = 24 + 6.3 * len(name)
            if x + width > WIDTH and x > left:
                x, y = left, y + 17
            parts.append(elements.rect(x, y - 9, 11, 10, f"fg-b fg-{color}", rx=2.0))
            parts.append(elements.text(x + 16, y, name))
            x += width
        height = y + 6 if self.legend else bottom + 38
        return elements.drawing(WIDTH, height, parts, title=self.title, description=self.description, key=key)

    def small(self) -> str:
        """Return the runs alone."""
        width, height = SMALL
        scale = self._scale(4, width - 4)
        step = min((height - 8) / max(len(self.rows), 1), 14.0)
        top = (height - step * len(self.rows)) / 2
        parts = []
        for index, (_, runs) in enumerate(self.rows):
            parts += self._bars(runs, scale, top + index * step, step * 0.72)
        return elements.drawing(width, height, parts)

    def _scale(self, begin: float, end: float) -> Scale:
        edges = [edge for _, runs in self.rows for run in runs for edge in (run.begin, run.end)] or [0.0, 1.0]
        return Scale(min(edges), max(max(edges), min(edges) + 1), begin, end)

    def _bars(self, runs: Sequence[Run], scale: Scale, top: float, height: float) -> list[str]:
        # A gap between runs that meet, unless they are too narrow for one.
        bars = []
        for run in runs:
            width = scale(run.end) - scale(run.begin)
            bars.append(
                elements.rect(
                    scale(run.begin), top, width - (1.0 if width > 3 else 0.0), height, f"fg-b fg-{run.color}", rx=1.5
                )
            )
        return bars
