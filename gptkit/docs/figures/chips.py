"""Texts in pieces: tokens as colored chips, and lists of what is supported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

from gptkit.docs.figures import elements
from gptkit.docs.figures.figure import SMALL

__all__ = ["Chips", "Features"]


@dataclass(frozen=True)
class Chips:
    """Pieces of text, each in one of a few colors.

    Attributes:
        pieces: a piece, and a small number or word below it (empty for none).
        style: `split` colors the pieces in turn; `last` only those from `first_new` on.
    """

    title: str
    pieces: Sequence[tuple[str, str]]
    description: str = ""
    style: Literal["split", "last"] = "split"
    first_new: int = 0

    def draw(self, key: str) -> str:
        """Return the pieces in a line that wraps."""
        chips = []
        for index, (piece, below) in enumerate(self.pieces):
            shown = escape(_visible(piece), quote=False)
            under = f"<small>{escape(below, quote=False)}</small>" if below else ""
            chips.append(f'<span class="fg-chip fg-c{self._color(index)}">{shown}{under}</span>')
        described = f"{self.title}. {self.description}".strip()
        return f'<div class="fg-chips" role="img" aria-label="{escape(described)}" id="{key}">{"".join(chips)}</div>'

    def small(self) -> str:
        """Return bars with the lengths of the pieces."""
        width, height = SMALL
        parts, x, y = [], 4.0, 8.0
        for index, (piece, _) in enumerate(self.pieces):
            long = 5.0 * max(len(piece), 1)
            if x + long > width - 4:
                x, y = 4.0, y + 15
            if y > height - 12:
                break
            color = self._color(index)
            parts.append(elements.rect(x, y, min(long, width - 8) - 1.5, 10, f"fg-b fg-{color}", rx=2.0))
            x += long
        return elements.drawing(width, height, parts)

    def _color(self, index: int) -> int:
        if self.style == "last":
            return 1 if index >= self.first_new else 0
        return index % 4 + 1


@dataclass(frozen=True)
class Features:
    """A list of features, each supported or not."""

    title: str
    features: Sequence[tuple[str, bool]] = field(default=())
    description: str = ""

    def draw(self, key: str) -> str:
        """Return the features as chips with a mark."""
        chips = [
            f'<span class="fg-chip fg-c{1 if has else 0}">{"✓" if has else "✗"} {escape(name, quote=False)}</span>'
            for name, has in self.features
        ]
        return f'<div class="fg-chips" id="{key}">{"".join(chips)}</div>'

    def small(self) -> str:
        """Return a square per feature."""
        width, height = SMALL
        parts = [
            elements.rect(8 + index % 5 * 22, 14 + index // 5 * 24, 16, 16, f"fg-b fg-{1 if has else 0}", rx=3.0)
            for index, (_, has) in enumerate(self.features[:10])
        ]
        return elements.drawing(width, height, parts)


def _visible(piece: str) -> str:
    return piece.replace(" ", "·").replace("\n", "↵").replace("\t", "⇥") or "∅"
