"""SVG elements as text. Colors are `currentColor` and translucent hues, which suit light and dark pages alike."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["COLORS", "TYPE_COLORS", "arrow", "box", "coordinate", "label", "line", "plus", "text_width", "wrapped"]

COLORS = {
    "tokenizer": "#e8590c",
    "embedding": "#9c36b5",
    "position": "#c2255c",
    "norm": "#868e96",
    "attention": "#3b5bdb",
    "feedforward": "#0b9268",
    "block": "#1098ad",
    "head": "#9c36b5",
    "sampler": "#e8590c",
}
TYPE_COLORS = ("#3b5bdb", "#e64980", "#0b9268", "#7048e8", "#1098ad", "#868e96")
CHANGED = "#f08c00"
DASHED = ' stroke-dasharray="3 3"'


def coordinate(value: float) -> str:
    """Return a number with at most one digit after the point."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def text_width(text: str, size: float) -> float:
    """Return an upper estimate of the width of a text in a sans-serif font."""
    return len(text) * size * 0.56


def wrapped(parts: Sequence[str], size: float, width: float) -> list[str]:
    """Join phrases with dots, and break lines between phrases, else between words."""
    lines: list[str] = []
    for part in parts:
        joined = f"{lines[-1]} · {part}" if lines else part
        if lines and text_width(joined, size) <= width:
            lines[-1] = joined
            continue
        lines.append("")
        for word in part.split(" "):
            longer = f"{lines[-1]} {word}" if lines[-1] else word
            if lines[-1] and text_width(longer, size) > width:
                lines.append(word)
            else:
                lines[-1] = longer
    return lines


def label(
    x: float, y: float, text: str, *, size: float = 11, bold: bool = False, end: bool = False, muted: bool = False
) -> str:
    """Return a text whose baseline begins (or ends) at a point."""
    more = ' font-weight="600"' if bold else ""
    more += ' text-anchor="end"' if end else ""
    more += ' fill-opacity=".72"' if muted else ""
    place = f'x="{coordinate(x)}" y="{coordinate(y)}" font-size="{coordinate(size)}"'
    return f"<text {place}{more}>{escape(text, quote=False)}</text>"


def box(x: float, y: float, width: float, height: float, color: str, *, changed: bool = False) -> str:
    """Return a rounded rectangle in a hue; a changed one has a thick outline."""
    stroke = f'stroke="{CHANGED}" stroke-width="2.5"' if changed else f'stroke="{color}" stroke-opacity=".6"'
    return (
        f'<rect x="{coordinate(x)}" y="{coordinate(y)}" width="{coordinate(width)}" height="{coordinate(height)}" rx="6" '
        f'fill="{color}" fill-opacity=".13" {stroke}/>'
    )


def line(*points: tuple[float, float], dashed: bool = False) -> str:
    """Return a line through points."""
    return f'<path d="{_path(points)}"{DASHED if dashed else ""}/>'


def arrow(*points: tuple[float, float]) -> str:
    """Return a line through points that ends in an arrowhead, in the direction of its last part."""
    (before_x, before_y), (x, y) = points[-2], points[-1]
    if x == before_x:
        back = y - 4 if y > before_y else y + 4
        wings = ((x - 3, back), (x, y), (x + 3, back))
    else:
        back = x - 4 if x > before_x else x + 4
        wings = ((back, y - 3), (x, y), (back, y + 3))
    return f'<path d="{_path(points)}{_path(wings)}"/>'


def plus(x: float, y: float) -> str:
    """Return a circled plus."""
    at = coordinate(y)
    return (
        f'<circle cx="{coordinate(x)}" cy="{at}" r="7"/>'
        f'<path d="M{coordinate(x - 4)} {at}L{coordinate(x + 4)} {at}M{coordinate(x)} {coordinate(y - 4)}'
        f'L{coordinate(x)} {coordinate(y + 4)}"/>'
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in points)
