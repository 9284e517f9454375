"""Drawings from plain data, as HTML on one line: heat maps, chips, bars, and columns of boxes with shapes at their arrows.

Colors are CSS variables of docs/extra.css, so that drawings follow the palette of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Step", "bars", "chips", "column", "figure", "flow", "heat", "windows"]

_LINE = 15.0


def figure(caption: str, *panels: str) -> str:
    """Return a figure: panels that wrap, and the caption."""
    inside = "".join(panels)
    return (
        f'<figure class="guide" markdown="0"><div class="guide-panels">{inside}</div>'
        f"<figcaption>{escape(caption, quote=False)}</figcaption></figure>"
    )


def _panel(title: str, drawing: str) -> str:
    heading = f'<div class="guide-title">{escape(title, quote=False)}</div>' if title else ""
    return f'<div class="guide-panel">{heading}{drawing}</div>'


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return f'<svg {size} role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def _text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{style}">{escape(words, quote=False)}</text>'


def _rect(x: float, y: float, width: float, height: float, style: str, opacity: float | None = None) -> str:
    faded = "" if opacity is None else f' style="fill-opacity:{opacity:.2f}"'
    return f'<rect class="{style}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3"{faded}/>'


def heat(
    title: str,
    rows: Sequence[Sequence[float]],
    row_names: Sequence[str] = (),
    column_names: Sequence[str] = (),
    *,
    numbers: bool = False,
    cell: float = 30.0,
) -> str:
    """Return a matrix as squares; negative numbers have the second color.

    Args:
        title: what the matrix is; written above it.
        rows: the numbers, the first row on top.
        row_names: names at the left.
        column_names: names above the columns.
        numbers: write the numbers into the squares.
        cell: width and height of a square.
    """
    largest = max((abs(value) for row in rows for value in row), default=1.0) or 1.0
    left = 6.5 * max((len(name) for name in row_names), default=0) + (8 if row_names else 0)
    top = _LINE + 4 if column_names else 2.0
    parts = [_text(left + cell * (i + 0.5), _LINE - 2, name, "middle") for i, name in enumerate(column_names)]
    for y, row in enumerate(rows):
        if y < len(row_names):
            parts.append(_text(left - 6, top + cell * y + cell / 2 + 4, row_names[y], "end"))
        for x, value in enumerate(row):
            at = left + cell * x, top + cell * y
            parts.append(_rect(at[0] + 1, at[1] + 1, cell - 2, cell - 2, "empty"))
            parts.append(
                _rect(
                    at[0] + 1, at[1] + 1, cell - 2, cell - 2, "more" if value >= 0 else "less", 0.85 * abs(value) / largest
                )
            )
            if numbers:
                shown = f"{value:.2f}".lstrip("0") if value else "0"
                parts.append(_text(at[0] + cell / 2, at[1] + cell / 2 + 4, shown, "middle small"))
    n_columns = max(len(row) for row in rows)
    return _panel(title, _svg(left + cell * n_columns + 2, top + cell * len(rows) + 2, title, parts))


def chips(pieces: Sequence[tuple[str, str]], title: str = "") -> str:
    """Return pieces of text in alternating colors, each above a small word."""
    shown = []
    for index, (piece, below) in enumerate(pieces):
        visible = escape(piece.replace(" ", "·"), quote=False)
        shown.append(
            f'<span class="guide-chip guide-{index % 4}">{visible}<small>{escape(below, quote=False)}</small></span>'
        )
    return _panel(title, f'<div class="guide-chips">{"".join(shown)}</div>')


def flow(steps: Sequence[tuple[str, str]]) -> str:
    """Return names of steps, each with a shape below, with arrows between them; they wrap."""
    boxes = [
        f'<span class="guide-step"><b>{escape(name, quote=False)}</b><small>{escape(shape, quote=False)}</small></span>'
        for name, shape in steps
    ]
    return _panel("", f'<div class="guide-flow">{"<i>→</i>".join(boxes)}</div>')


def windows(pieces: Sequence[str], context: int, starts: Sequence[int]) -> str:
    """Return a row of tokens, and for each data window its inputs and its targets below, in the columns of the tokens."""
    width, height = 44.0, 24.0
    parts = []

    def row(y: float, name: str, begin: int, count: int, style: str) -> None:
        parts.append(_text(62, y + 16, name, "end"))
        for place in range(begin, min(begin + count, len(pieces))):
            x = 70 + width * place
            parts.append(_rect(x + 1, y, width - 2, height - 2, style))
            parts.append(_text(x + width / 2, y + 15, pieces[place].replace(" ", "·"), "middle small"))

    row(0, "tokens", 0, len(pieces), "empty")
    y = height + 10
    for number, start in enumerate(starts, start=1):
        row(y, f"inputs {number}", start, context, "more soft")
        row(y + height, "targets", start + 1, context, "less soft")
        y += 2 * height + 10
    return _panel("", _svg(72 + width * len(pieces), y, "Data windows over a row of tokens", parts))


def bars(title: str, values: Sequence[tuple[str, float]]) -> str:
    """Return horizontal bars with names and percentages."""
    parts = []
    for index, (name, value) in enumerate(values):
        y = 22.0 * index
        parts.append(_text(58, y + 15, name.replace(" ", "·"), "end"))
        parts.append(_rect(64, y + 3, max(1.0, 110 * value), 16, "more soft"))
        parts.append(_text(70 + 110 * value, y + 15, f"{100 * value:.0f} %", "small"))
    return _panel(title, _svg(220, 22.0 * len(values) + 2, title, parts))


@dataclass(frozen=True)
class Step:
    """One box of a column.

    Attributes:
        name: the text of the box; `+` is drawn as a circle.
        shape: the shape of what leaves it, written at the arrow below.
        skip_from: index of the box whose output also enters this one, over a shortcut at the side; None for none.
        note: smaller text in the box.
        soft: whether it is an input or output, drawn without a frame.
    """

    name: str
    shape: str = ""
    skip_from: int | None = None
    note: str = ""
    soft: bool = False


def column(title: str, steps: Sequence[Step]) -> str:
    """Return boxes from top to bottom with the shapes at their arrows."""
    center, half, gap = 120.0, 92.0, 30.0
    tops, y = [], 2.0
    heights = [26.0 if step.soft or step.name == "+" else 42.0 if step.note else 32.0 for step in steps]
    for height in heights:
        tops.append(y)
        y += height + gap
    parts = []
    for index, step in enumerate(steps):
        top, height = tops[index], heights[index]
        if index + 1 < len(steps):
            end = top + height + gap
            parts.append(f'<path d="M{center:g} {top + height:g}V{end - 1:g}m-4 -6l4 6l4 -6"/>')
            parts.append(_text(center + 8, top + height + 19, step.shape, "small code"))
        if step.skip_from is not None:
            start = tops[step.skip_from] + heights[step.skip_from] + 8
            side, middle = center - half - 16, top + height / 2
            parts.append(f'<path d="M{center:g} {start:g}H{side:g}V{middle:g}H{center - 15:g}m-6 -4l6 4l-6 4"/>')
        if step.name == "+":
            parts.append(f'<circle cx="{center:g}" cy="{top + height / 2:g}" r="13"/>')
            parts.append(_text(center, top + height / 2 + 5, "+", "middle strong"))
            continue
        if not step.soft:
            parts.append(_rect(center - half, top, 2 * half, height, "box"))
        parts.append(_text(center, top + (18 if step.note else height / 2 + 5), step.name, "middle strong"))
        if step.note:
            parts.append(_text(center, top + 34, step.note, "middle small"))
    return _panel(title, _svg(250, y - gap + 4, title or "Diagram of the computation", parts))
