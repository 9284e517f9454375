"""Drawing of the steps of a block: branches beside the residual stream, and their additions."""

from __future__ import annotations

from collections.abc import Mapping

from gptkit.diagrams import canvas
from gptkit.diagrams.outline import Box, LayerType
from gptkit.diagrams.sketch import SPINE, Sketch
from gptkit.kinds.block import Step

__all__ = ["draw_step", "draw_unknown"]

_X = 60
_BOX = 290
_MIDDLE = 205
_FEED = 44
"""Abscissa of the line that feeds parallel branches, left of them; `_RETURN` collects their results."""
_RETURN = 361
_GAP = 11


def draw_step(sketch: Sketch, step: Step, factors: tuple[str, str], boxes: Mapping[str, Box], prefix: str) -> None:
    """Draw a step: its branches, the addition to the stream, and the norm after it.

    Args:
        sketch: the drawing.
        step: the step.
        factors: the factors of the branches and of the shortcut, as text.
        boxes: the parts of the layer by role.
        prefix: prefix of the keys of the boxes.
    """
    start = sketch.y
    sketch.y += 6
    if len(step.branches) == 1:
        _column(sketch, (*step.before, *step.branches[0]), boxes, prefix)
        end = sketch.y + _GAP
        back = [(_MIDDLE, sketch.y), (_MIDDLE, end)]
    else:
        end = _parallel(sketch, step, boxes, prefix)
        back = [(_RETURN, end)]
    if step.shortcut:
        sketch.spine(start, end - 7)
        sketch.lines.append(canvas.plus(SPINE, end))
        sketch.lines.append(canvas.arrow(*back, (SPINE + 7, end)))
    else:
        sketch.spine(start, start + 6)
        sketch.lines.append(canvas.line(*back, (SPINE, end)))
    if step.scaled:
        sketch.text(SPINE + 12, end + 17, step.scaled, size=10)
    if factors[0]:
        sketch.text(SPINE + 14, end - 4, factors[0], size=10)
    if factors[1]:
        sketch.text(SPINE + 4, start + 24, factors[1], size=9)
    sketch.y = end + (7 if step.shortcut else 0)
    if not step.shortcut:
        sketch.spine(end, end + 7)
        sketch.y = end + 7
    if step.scaled:
        sketch.spine(sketch.y, sketch.y + 14)
        sketch.y += 14
    if step.after:
        sketch.lines.append(canvas.arrow((SPINE, sketch.y), (SPINE, sketch.y + 12)))
        sketch.y += 12
        sketch.box(10, 340, boxes["norm"], f"{prefix}.norm")


def draw_unknown(sketch: Sketch, kind: LayerType, prefix: str) -> None:
    """Draw the parts of a block that does not declare its wiring, without connections."""
    start = sketch.y
    for each in kind.boxes.values():
        sketch.y += 8
        sketch.box(_X, _BOX, each, f"{prefix}.{each.role}")
    sketch.text(_X, sketch.y + 15, "This block does not declare how it connects its parts.", muted=True)
    sketch.y += 22
    sketch.spine(start, sketch.y, dashed=True)


def _column(sketch: Sketch, parts: tuple[str, ...], boxes: Mapping[str, Box], prefix: str) -> None:
    """Draw parts below each other, the first one fed by the stream."""
    sketch.lines.append(canvas.arrow((SPINE, sketch.y), (_MIDDLE, sketch.y), (_MIDDLE, sketch.y + _GAP)))
    sketch.y += _GAP
    for index, part in enumerate(parts):
        if index:
            sketch.lines.append(canvas.arrow((_MIDDLE, sketch.y), (_MIDDLE, sketch.y + _GAP)))
            sketch.y += _GAP
        sketch.box(_X, _BOX, _part(boxes, part), f"{prefix}.{part}")


def _part(boxes: Mapping[str, Box], part: str) -> Box:
    """Return the box of a part; one that is the block's own has its title."""
    return boxes.get(part) or Box("block", part)


def _parallel(sketch: Sketch, step: Step, boxes: Mapping[str, Box], prefix: str) -> float:
    """Draw branches that read the same vectors; return the ordinate at which their results join."""
    if step.before:
        _column(sketch, step.before, boxes, prefix)
        top = sketch.y + _GAP
        sketch.lines.append(canvas.line((_MIDDLE, sketch.y), (_MIDDLE, top), (_FEED, top)))
    else:
        top = sketch.y
        sketch.lines.append(canvas.line((SPINE, top), (_FEED, top)))
    sketch.y = top
    first = feed = top
    for number, branch in enumerate(step.branches):
        sketch.y += _GAP
        if not branch:
            feed = middle = sketch.y
            sketch.lines.append(canvas.line((_FEED, middle), (_X + _BOX, middle)))
        for index, part in enumerate(branch):
            if index:
                sketch.lines.append(canvas.arrow((_MIDDLE, sketch.y), (_MIDDLE, sketch.y + _GAP)))
                sketch.y += _GAP
            height = sketch.box(_X, _BOX, _part(boxes, part), f"{prefix}.{part}")
            middle = sketch.y - height / 2
            if not index:
                sketch.lines.append(canvas.arrow((_FEED, middle), (_X, middle)))
                feed = middle
        sketch.lines.append(canvas.line((_X + _BOX, middle), (_RETURN, middle)))
        first = middle if not number else first
    end = sketch.y + _GAP
    sketch.lines.append(canvas.line((_FEED, top), (_FEED, feed)))
    sketch.lines.append(canvas.line((_RETURN, first), (_RETURN, end)))
    return end
