"""Drawing of an outline as SVG: the residual stream runs down the left side, and the parts of a block branch off it."""

from __future__ import annotations

from collections.abc import Collection
from html import escape

from gptkit.diagrams import canvas
from gptkit.diagrams.facts import number, parameters
from gptkit.diagrams.outline import Box, LayerType, Outline
from gptkit.diagrams.sketch import LEFT, SPINE, WIDTH, Sketch
from gptkit.diagrams.steps import draw_step, draw_unknown

__all__ = ["MARK", "svg"]

MARK = "<!-- Drawn by gptkit. -->"
"""Comment at the beginning of a diagram's file, by which a file that may be replaced is recognized."""

_STYLE = "<style>:root{color:#1f2328}@media(prefers-color-scheme:dark){:root{color:#e6edf3}}</style>"
SCALE = 1.25
"""Size of a unit in pixels."""


def svg(outline: Outline, *, standalone: bool = False, header: bool = True, changed: Collection[str] = ()) -> str:
    """Return the diagram of an outline as SVG. Equal outlines give equal bytes.

    Args:
        outline: the content.
        standalone: the text is a file of its own, which chooses its text color by the reader's color scheme. Otherwise, the
            diagram has the text color of the page that contains it.
        header: begin with the title and the summary.
        changed: keys of the boxes to mark: ``embedding``, or ``layers.0.attention`` for a part of the first type of layers.
    """
    sketch = Sketch(changed)
    if header and outline.title:
        sketch.text(8, sketch.y + 12, outline.title, size=15, bold=True)
        sketch.y += 22
    for text in canvas.wrapped(outline.summary.split(" · "), 11, WIDTH - 16) if header else ():
        sketch.text(8, sketch.y + 8, text, muted=True)
        sketch.y += 15
    sketch.y += 4
    for index, each in enumerate(outline.before):
        if index:
            sketch.arrow_down(outline.ids)
        sketch.box(LEFT, WIDTH - 2 * LEFT, each, each.role)
    if outline.position is not None:
        _position(sketch, outline.position)
    sketch.arrow_down(outline.shape)
    if len(outline.types) > 1:
        _strip(sketch, outline)
    for index, kind in enumerate(outline.types):
        if index:
            sketch.arrow_down("")
        _layers(sketch, index, kind, colored=len(outline.types) > 1)
    for each in outline.after:
        sketch.arrow_down(outline.logits if each.role == "sampler" else outline.shape)
        sketch.box(LEFT, WIDTH - 2 * LEFT, each, "final_norm" if each.role == "norm" else each.role)
    sketch.arrow_down("next token" if outline.after[-1].role == "sampler" else outline.logits)
    return _document(outline, sketch, standalone)


def _document(outline: Outline, sketch: Sketch, standalone: bool) -> str:
    height = canvas.coordinate(sketch.y + 2)
    pixels = f'width="{int(WIDTH * SCALE)}" height="{int((sketch.y + 2) * SCALE)}"'
    name = f"Architecture of {outline.title}" if outline.title else "Architecture"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="architecture" role="img" viewBox="0 0 {WIDTH} {height}" {pixels} '
        f'font-family="system-ui,-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif">'
        f"{MARK + _STYLE if standalone else ''}<title>{escape(name, quote=False)}</title>"
        f"<desc>{escape(outline.text(), quote=False)}</desc>"
        f"{''.join(sketch.rects)}"
        f'<g fill="none" stroke="currentColor" stroke-opacity=".7" stroke-linecap="round">{"".join(sketch.lines)}</g>'
        f'<g fill="currentColor">{"".join(sketch.texts)}</g></svg>\n'
    )


def _position(sketch: Sketch, box: Box) -> None:
    """Draw the absolute position beside the stream, with its addition."""
    start = sketch.y
    sketch.y += 12
    height = sketch.box(60, WIDTH - 68, box, "position")
    middle = sketch.y - height / 2
    sketch.spine(start, middle - 7)
    sketch.lines.append(canvas.plus(SPINE, middle))
    sketch.lines.append(canvas.arrow((60, middle), (SPINE + 7, middle)))
    sketch.spine(middle + 7, sketch.y)


def _strip(sketch: Sketch, outline: Outline) -> None:
    """Draw a cell for each layer, colored by its type, and the pattern below them."""
    start = sketch.y
    sketch.text(40, sketch.y + 9, f"{number(len(outline.sequence))} layers", bold=True)
    sketch.y += 16
    per_row = 41
    for index, kind in enumerate(outline.sequence[: 8 * per_row]):
        x, y = 40 + 8 * (index % per_row), sketch.y + 15 * (index // per_row)
        color = canvas.TYPE_COLORS[kind % len(canvas.TYPE_COLORS)]
        sketch.rects.append(f'<rect x="{x}" y="{canvas.coordinate(y)}" width="7" height="12" rx="1.5" fill="{color}"/>')
    sketch.y += 15 * min(8, (len(outline.sequence) + per_row - 1) // per_row)
    for text in canvas.wrapped(outline.pattern.split(" · "), 11, WIDTH - 48):
        sketch.text(40, sketch.y + 11, text, muted=True)
        sketch.y += 15
    sketch.spine(start, sketch.y)
    sketch.arrow_down("")


def _layers(sketch: Sketch, index: int, kind: LayerType, *, colored: bool) -> None:
    """Draw the block of a type of layers in a frame."""
    top = sketch.y
    color = canvas.TYPE_COLORS[index % len(canvas.TYPE_COLORS)] if colored else ""
    title = kind.title
    if colored:
        sketch.rects.append(f'<rect x="40" y="{canvas.coordinate(top + 9)}" width="8" height="12" rx="1.5" fill="{color}"/>')
        title = f"{kind.label}: {kind.title}"
    left, times = (54 if colored else 40), f"× {number(kind.times)}"
    sketch.y += 11
    for text in canvas.wrapped([title], 12.5, WIDTH - 24 - left - canvas.text_width(times, 12.5)):
        sketch.text(left, sketch.y + 8, text, size=12.5, bold=True)
        sketch.y += 15
    sketch.text(WIDTH - 12, top + 19, times, size=12.5, bold=True, end=True)
    notes = kind.note.split(" · ") if kind.note else []
    if kind.count is not None:
        notes.insert(0, f"{parameters(kind.count)} parameters{' each' if kind.times > 1 else ''}")
    for text in canvas.wrapped(notes, 11, WIDTH - 52):
        sketch.text(40, sketch.y + 8, text, muted=True)
        sketch.y += 15
    sketch.spine(top, sketch.y)
    prefix = f"layers.{index}"
    if kind.steps is None:
        draw_unknown(sketch, kind, prefix)
    for step, factors in zip(kind.steps or (), kind.factors, strict=True):
        draw_step(sketch, step, factors, kind.boxes, prefix)
    start = sketch.y
    sketch.y += 8
    sketch.spine(start, sketch.y)
    sketch.frame(top, color, changed=f"{prefix}.block" in sketch.changed)
