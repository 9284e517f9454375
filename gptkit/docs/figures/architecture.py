"""The diagram of a model as a panel of a figure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gptkit.diagrams.drawing import svg
from gptkit.diagrams.outline import Outline
from gptkit.docs.figures import elements
from gptkit.docs.figures.figure import SMALL

__all__ = ["Architecture"]

WIDTH = 340.0


@dataclass(frozen=True)
class Architecture:
    """A model, drawn as `gptkit show` draws it."""

    title: str
    outline: Outline

    @property
    def description(self) -> str:
        """The content of the diagram as sentences."""
        return self.outline.text()

    def draw(self, key: str) -> str:
        """Return the diagram with the width of a panel."""
        drawn = svg(self.outline, header=False).strip()
        match = re.match(r"<svg [^>]*>", drawn)
        assert match is not None
        box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', match[0])
        assert box is not None
        height = elements.number(WIDTH * float(box[2]) / float(box[1]))
        size = f'viewBox="{box[0][9:-1]}" width="{elements.number(WIDTH)}" height="{height}"'
        font = 'font-family="system-ui,-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif"'
        return f'<svg class="fg fg-architecture" role="img" id="{key}" {size} {font}>{drawn[match.end() :]}'

    def small(self) -> str:
        """Return a cell for each layer, colored by its type, between the embedding and the head."""
        width, height = SMALL
        layers = self.outline.sequence[:6]
        step = (height - 8) / (len(layers) + 2)
        parts = [elements.rect(34, 4, 52, step - 2.5, "fg-b fg-0", rx=2.0)]
        for index, kind in enumerate(layers, start=1):
            parts.append(elements.rect(28, 4 + index * step, 64, step - 2.5, f"fg-b fg-{kind % 4 + 1}", rx=2.0))
        parts.append(elements.rect(34, 4 + (len(layers) + 1) * step, 52, step - 2.5, "fg-b fg-0", rx=2.0))
        return elements.drawing(width, height, parts)
