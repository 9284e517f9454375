"""Boxes in which two diagrams differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gptkit.diagrams.outline import Box, LayerType, Outline

__all__ = ["changed_boxes"]


def changed_boxes(left: Outline, right: Outline) -> tuple[set[str], set[str]]:
    """Return the keys of the boxes that differ, or that only one side has, for each side, as `drawing.svg` takes them.

    Types of layers are compared in their order. A frame is marked (``layers.0.block``) if the block, its note, or the number
    of layers differs. Numbers of parameters are not compared, since they follow from the fields.
    """
    one, other = dict(_contents(left)), dict(_contents(right))
    differing = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    return differing & one.keys(), differing & other.keys()


def _contents(outline: Outline) -> Iterator[tuple[str, object]]:
    boxes = [*outline.before, *([outline.position] if outline.position else []), *outline.after]
    for box in boxes:
        yield "final_norm" if box.role == "norm" else box.role, _without_count(box)
    for index, kind in enumerate(outline.types):
        yield f"layers.{index}.block", _frame(kind)
        for role, box in kind.boxes.items():
            yield f"layers.{index}.{role}", _without_count(box)


def _without_count(box: Box) -> Box:
    return replace(box, count=None)


def _frame(kind: LayerType) -> object:
    return kind.title, kind.note, kind.times, kind.steps, kind.factors
