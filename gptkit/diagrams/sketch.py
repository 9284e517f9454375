"""Elements of a diagram that is being drawn from top to bottom."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from gptkit.diagrams import canvas
from gptkit.diagrams.facts import parameters
from gptkit.diagrams.outline import Box

__all__ = ["LEFT", "SPINE", "WIDTH", "Sketch"]

WIDTH = 376
LEFT = 8
SPINE = 24
"""Abscissa of the residual stream."""


class Sketch:
    """Rectangles, lines and texts, which a drawing shows in this order; `y` is where the next part begins.

    Args:
        changed: keys of the boxes to mark.
    """

    def __init__(self, changed: Collection[str] = ()) -> None:
        self.rects: list[str] = []
        self.lines: list[str] = []
        self.texts: list[str] = []
        self.changed = changed
        self.y: float = 4

    def text(self, x: float, y: float, text: str, **look: Any) -> None:
        """Add a text; `look` as for `canvas.label`."""
        self.texts.append(canvas.label(x, y, text, **look))

    def box(self, x: float, width: float, box: Box, key: str) -> float:
        """Draw a component at `y`, move `y` below it, and return the height of the box."""
        top = self.y
        self.text(x + 9, top + 16, box.title, size=12.5, bold=True)
        if box.count is not None:
            self.text(x + width - 9, top + 16, parameters(box.count), muted=True, end=True)
        y = top + 24
        shapes = box.shapes.split(" · ") if box.shapes else []
        for phrases, muted in ((box.facts, False), (shapes, True)):
            for text in canvas.wrapped(phrases, 11, width - 18):
                self.text(x + 9, y + 7, text, muted=muted)
                y += 15
        height = y - top + (2 if y > top + 24 else 0)
        self.rects.append(canvas.box(x, top, width, height, canvas.COLORS[box.role], changed=key in self.changed))
        self.y = top + height
        return height

    def spine(self, start: float, end: float, *, dashed: bool = False) -> None:
        """Draw a part of the residual stream."""
        if end > start:
            self.lines.append(canvas.line((SPINE, start), (SPINE, end), dashed=dashed))

    def arrow_down(self, shape: str) -> None:
        """Draw an arrow along the stream, beside it the shape of what flows."""
        height = 24 if shape else 14
        self.lines.append(canvas.arrow((SPINE, self.y), (SPINE, self.y + height)))
        if shape:
            self.text(SPINE + 12, self.y + 15.5, shape, muted=True)
        self.y += height

    def frame(self, top: float, color: str, *, changed: bool) -> None:
        """Draw a frame from `top` to `y` behind what it contains."""
        stroke = f'stroke="{color}" stroke-width="1.5"' if color else 'stroke="currentColor" stroke-opacity=".45"'
        if changed:
            stroke = f'stroke="{canvas.CHANGED}" stroke-width="2.5"'
        height = canvas.coordinate(self.y - top)
        self.rects.insert(
            0,
            f'<rect x="2" y="{canvas.coordinate(top)}" width="{WIDTH - 4}" height="{height}" rx="8" fill="currentColor" '
            f'fill-opacity=".025" {stroke} stroke-dasharray="5 3"/>',
        )
