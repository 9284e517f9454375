"""A figure: panels beside each other, with a caption; and its small form for tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

__all__ = ["SMALL", "Figure", "Panel"]

SMALL = (120.0, 72.0)
"""Width and height of the small form."""


class Panel(Protocol):
    """One drawing of a figure."""

    @property
    def title(self) -> str:
        """What the panel shows, in a few words; shown above it."""
        ...

    @property
    def description(self) -> str:
        """The panel in a sentence, for those who cannot see it."""
        ...

    def draw(self, key: str) -> str:
        """Return the panel as HTML on one line; `key` is a prefix of ids that is unique on the page."""
        ...

    def small(self) -> str:
        """Return the panel without words, 120 × 72, as HTML on one line; empty if it has no such form."""
        ...


@dataclass(frozen=True)
class Figure:
    """Panels and their caption.

    Attributes:
        panels: the panels; the first one that has a small form represents the component in tables.
        caption: sentences that say what is drawn, and from which values.
    """

    panels: Sequence[Panel]
    caption: str

    def html(self, key: str = "figure") -> str:
        """Return the figure as HTML without blank lines, a block that Markdown keeps as it is."""
        parts = ['<figure class="fg-figure" data-search-exclude>', '<div class="fg-panels">']
        for index, panel in enumerate(self.panels, start=1):
            heading = f'<div class="fg-title">{escape(panel.title, quote=False)}</div>' if panel.title else ""
            parts.append(f'<div class="fg-panel">{heading}{panel.draw(f"{key}-{index}")}</div>')
        parts += ["</div>", f"<figcaption>{escape(self.caption, quote=False)}</figcaption>", "</figure>"]
        return "\n".join(parts)

    def thumbnail(self) -> str:
        """Return the small form; empty if no panel has one."""
        return next(filter(None, (panel.small() for panel in self.panels)), "")
