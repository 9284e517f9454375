"""Elements of SVG: text that is escaped, numbers with few digits, and a whole drawing with its description."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["drawing", "line", "number", "path", "rect", "text", "tick"]


def number(value: float) -> str:
    """Return a coordinate with one digit after the point; equal input gives equal bytes."""
    rounded = round(float(value), 1)
    return f"{rounded:g}" if rounded else "0"


def tick(value: float) -> str:
    """Return the label of a tick."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000 or abs(value) < 0.001:
        mantissa, _, exponent = f"{value:.0e}".partition("e")
        raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        power = f"10{raised}"
        return power if mantissa == "1" else f"{mantissa.replace('-', '−')}·{power}"
    return f"{value:.4g}".replace("-", "−")


def rect(x: float, y: float, width: float, height: float, style: str, **attributes: str | float) -> str:
    """Return a rectangle of a CSS class."""
    shape = f'x="{number(x)}" y="{number(y)}" width="{number(max(width, 0))}" height="{number(max(height, 0))}"'
    return f'<rect class="{style}" {shape}{_attributes(attributes)}/>'


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """Return a straight line of a CSS class."""
    return f'<path class="{style}" d="M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}"/>'


def path(points: Sequence[tuple[float, float]], style: str, *, closed: bool = False, **attributes: str | float) -> str:
    """Return the line through points, of a CSS class."""
    drawn = "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return f'<path class="{style}" d="M{drawn}{"Z" if closed else ""}"{_attributes(attributes)}/>'


def text(x: float, y: float, words: str, style: str = "fg-t", **attributes: str | float) -> str:
    """Return a line of text of a CSS class; (x, y) is its baseline, the alignment is part of the class."""
    return f'<text class="{style}" x="{number(x)}" y="{number(y)}"{_attributes(attributes)}>{_escaped(words)}</text>'


def drawing(
    width: float, height: float, parts: Sequence[str], *, title: str = "", description: str = "", key: str = ""
) -> str:
    """Return an SVG element on one line, as Markdown keeps it.

    Args:
        title: what it shows; without a title the drawing is decoration, which readers of a screen skip.
        description: the shown values in words.
        key: an id that is unique on the page.
    """
    size = f'viewBox="0 0 {number(width)} {number(height)}" width="{number(width)}" height="{number(height)}"'
    inside = "".join(parts)
    if not title:
        return f'<svg class="fg" {size} aria-hidden="true">{inside}</svg>'
    named = f'<title id="{key}-t">{_escaped(title)}</title><desc id="{key}-d">{_escaped(description)}</desc>'
    return f'<svg class="fg" {size} role="img" aria-labelledby="{key}-t {key}-d">{named}{inside}</svg>'


def _escaped(words: str) -> str:
    return escape(words, quote=False)


def _attributes(values: dict[str, str | float]) -> str:
    shown = ((name.rstrip("_").replace("_", "-"), value) for name, value in values.items())
    return "".join(
        f' {name}="{escape(value) if isinstance(value, str) else f"{round(value, 3):g}"}"' for name, value in shown
    )
