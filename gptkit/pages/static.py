"""HTML pages without scripts: figures and tables in one file that loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from gptkit.pages.page import asset, digest, document

__all__ = ["figure", "folded", "section", "static_page", "table"]


def static_page(title: str, remark: str, figures: Iterable[str], sections: Iterable[str]) -> str:
    """Return a page: the title, figures, and sections beside or below them.

    Args:
        title: the title, plain text.
        remark: a line below it, plain text.
        figures: results of `figure`.
        sections: results of `section` or `folded`.
    """
    style = asset("architecture.css")
    policy = f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src '{digest(style)}'"
    return document(
        title,
        policy,
        style,
        f'<main>\n<h1>{escape(title)}</h1>\n<p class="remark">{escape(remark)}</p>\n<div class="columns">\n'
        f'{"".join(figures)}<div class="texts">\n{"".join(sections)}</div>\n</div>\n</main>\n',
    )


def figure(svg: str, caption: str = "") -> str:
    """Return an SVG element as a figure."""
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{text}{svg}</figure>\n"


def section(title: str, content: str) -> str:
    """Return a heading and its content, which is HTML."""
    return f"<h2>{escape(title)}</h2>\n{content}\n"


def folded(title: str, text: str) -> str:
    """Return plain text that is shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>\n"


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Return a table of plain texts."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    top = f"<thead><tr>{head}</tr></thead>" if header else ""
    return f'<div class="scroll" tabindex="0"><table>{top}<tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    # A number with its unit is not broken.
    number = ' class="number"' if len(text) < 20 and text[:1].isdigit() else ""
    return f"<td{number}>{escape(text)}</td>"
