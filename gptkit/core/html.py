"""Pieces of HTML for notebooks. Colors are inherited, so that they fit light and dark themes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["code", "details", "escape", "heading", "table"]

_LINE = "border-bottom:1px solid rgba(128,128,128,.35)"


def heading(title: str, remark: str = "") -> str:
    """Return a title, with a remark in lighter text."""
    rest = f' <span style="opacity:.65;font-weight:normal">{escape(remark)}</span>' if remark else ""
    return f'<div style="font-weight:bold;margin:.3em 0">{escape(title)}{rest}</div>'


def code(text: str, height: str = "32em") -> str:
    """Return text in a fixed-width font, which scrolls where it is higher than `height`."""
    style = (
        f"max-height:{height};overflow:auto;margin:.3em 0;line-height:1.35;font-size:90%;"
        "white-space:pre;background:none;color:inherit"
    )
    return f'<pre style="{style}">{escape(text)}</pre>'


def details(summary: str, content: str) -> str:
    """Return content that is folded until the summary is clicked."""
    return f'<details style="margin:.3em 0"><summary style="cursor:pointer">{escape(summary)}</summary>{content}</details>'


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Return a table of text cells whose first column contains names."""
    cells = "padding:.15em 1.2em .15em 0;background:none;color:inherit"
    head = "".join(
        f'<th style="text-align:{"left" if not index else "right"};{cells};{_LINE}">{escape(cell)}</th>'
        for index, cell in enumerate(header)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align:{"right" if header and index else "left"};{cells};{"opacity:.7" if not index else ""}">'
            f"{escape(cell)}</td>"
            for index, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    top = f"<tr>{head}</tr>" if head else ""
    return f'<table style="border-collapse:collapse;margin:.3em 0;color:inherit">{top}{body}</table>'
