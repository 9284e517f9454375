"""Wiring diagrams: the steps of a module from top to bottom, with the vectors that skip some of them at the side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gptkit.docs.figures import elements
from gptkit.docs.figures.figure import SMALL
from gptkit.docs.figures.repeats import Repeat

__all__ = ["Box", "Wiring"]

WIDTH = 340.0
_CENTER, _HALF = 136.0, 104.0
_NESTED = 36.0
"""Room for the bracket of one level of repeats, left of the boxes."""


@dataclass(frozen=True)
class Box:
    """One step of a diagram.

    Attributes:
        name: its first line; a symbol of one character is drawn in a circle.
        below: its second line; empty for none.
        sources: indices of the boxes above that it reads.
        end: whether it is an input or the output, which are drawn without a frame.
    """

    name: str
    below: str = ""
    sources: tuple[int, ...] = ()
    end: bool = False

    @property
    def round(self) -> bool:
        return len(self.name) == 1 and not self.end

    @property
    def height(self) -> float:
        return 18.0 if self.end else 24.0 if self.round else 38.0 if self.below else 26.0


@dataclass(frozen=True)
class Wiring:
    """Diagram of boxes in the order of computation.

    Attributes:
        repeats: boxes that are computed several times, with brackets beside them.
    """

    title: str
    boxes: Sequence[Box]
    description: str = ""
    repeats: Sequence[Repeat] = ()

    def draw(self, key: str) -> str:
        """Return the diagram with names and shapes."""
        tops, height = self._tops(16.0)
        center = _CENTER + max(0.0, _NESTED * max((repeat.depth + 1 for repeat in self.repeats), default=0) - 26)
        parts = self._edges(tops, center, _HALF, 14.0, arrows=True)
        for repeat in self.repeats:
            x = center - _HALF - 10 - _NESTED * repeat.depth
            top, bottom = tops[repeat.first] - 3, tops[repeat.last] + self.boxes[repeat.last].height + 3
            parts.append(elements.path([(x + 6, top), (x, top), (x, bottom), (x + 6, bottom)], "fg-l fg-1"))
            parts.append(elements.text(x - 5, (top + bottom) / 2 + 4, f"× {repeat.times}", "fg-t fg-end fg-strong"))
        for box, top in zip(self.boxes, tops, strict=True):
            middle = top + box.height / 2
            if box.round:
                parts.append(f'<circle class="fg-node" cx="{center:g}" cy="{elements.number(middle)}" r="12"/>')
                parts.append(elements.text(center, middle + 5, box.name, "fg-t fg-mid fg-strong"))
                continue
            if not box.end:
                parts.append(elements.rect(center - _HALF, top, 2 * _HALF, box.height, "fg-node", rx=6.0))
            line = middle + 4 if not box.below else middle - 3
            parts.append(elements.text(center, line, box.name, "fg-t fg-mid fg-strong"))
            if box.below:
                parts.append(elements.text(center, middle + 12, box.below, "fg-t fg-mid"))
        return elements.drawing(WIDTH, height, parts, title=self.title, description=self.description, key=key)

    def small(self) -> str:
        """Return the boxes without words, from left to right."""
        width, height = SMALL
        room = width - 16
        step = room / max(len(self.boxes) - 1, 1)
        parts = []
        places = [8 + index * step for index in range(len(self.boxes))]
        for index, box in enumerate(self.boxes):
            for source in box.sources:
                near = source == index - 1
                corners = [] if near else [(places[source], 14.0), (places[index], 14.0)]
                parts.append(elements.path([(places[source], 44), *corners, (places[index], 44)], "fg-edge"))
        for box, x in zip(self.boxes, places, strict=True):
            if box.round:
                parts.append(f'<circle class="fg-node" cx="{elements.number(x)}" cy="44" r="4"/>')
            elif not box.end:
                wide = min(step * 0.7, 14)
                parts.append(elements.rect(x - wide / 2, 34, wide, 20, "fg-b fg-1", rx=2.0))
        for repeat in self.repeats:
            y = 58.0 + 5 * repeat.depth
            parts.append(elements.line(places[repeat.first] - 5, y, places[repeat.last] + 5, y, "fg-l fg-0"))
        return elements.drawing(width, height, parts)

    def _tops(self, gap: float) -> tuple[list[float], float]:
        tops, at = [], 2.0
        for box in self.boxes:
            tops.append(at)
            at += box.height + gap
        return tops, at - gap + 2

    def _edges(self, tops: Sequence[float], center: float, half: float, lane: float, *, arrows: bool) -> list[str]:
        parts = []
        lanes: list[float] = []
        """The end of the last edge in each lane."""
        for index, box in enumerate(self.boxes):
            top, middle = tops[index], tops[index] + box.height / 2
            for source in box.sources:
                begin = tops[source] + self.boxes[source].height
                if source == index - 1:
                    parts.append(elements.line(center, begin, center, top, "fg-edge"))
                    parts.append(_arrow(center, top, down=True))
                    continue
                from_y = tops[source] + self.boxes[source].height / 2
                free = next((number for number, until in enumerate(lanes) if until <= from_y), len(lanes))
                lanes[free : free + 1] = [middle]
                x = center + half + lane * (free + 1)
                start = center + self._reach(source, half)
                stop = center + self._reach(index, half)
                parts.append(elements.path([(start, from_y), (x, from_y), (x, middle), (stop, middle)], "fg-edge"))
                parts.append(_arrow(stop, middle, down=False))
        return parts

    def _reach(self, index: int, half: float) -> float:
        box = self.boxes[index]
        return 12.0 if box.round else 4.0 + 3.4 * len(box.name) if box.end else half


def _arrow(x: float, y: float, *, down: bool) -> str:
    wings = [(x - 3.5, y - 6), (x, y), (x + 3.5, y - 6)] if down else [(x + 6, y - 3.5), (x, y), (x + 6, y + 3.5)]
    return elements.path(wings, "fg-edge")
