"""A search as a tree: what each step continues, and the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gptkit.docs.figures import elements
from gptkit.docs.figures.figure import SMALL

__all__ = ["Node", "Tree"]

WIDTH = 340.0


@dataclass(frozen=True)
class Node:
    """One text of a search.

    Attributes:
        step: number of tokens generated.
        row: its row in the search.
        parent: index of the node that it continues; None for the prompt.
        token: the token that it adds.
        best: whether it is a part of the best result.
    """

    step: int
    row: int
    parent: int | None
    token: str
    best: bool = False


@dataclass(frozen=True)
class Tree:
    """Nodes from left to right."""

    title: str
    nodes: Sequence[Node]
    description: str = ""

    def draw(self, key: str) -> str:
        """Return the tree with a token in each node."""
        n_rows, n_steps = self._extent()
        height = max(60.0, 34.0 * n_rows) + 26
        parts = self._edges(WIDTH, height - 20, 12)
        for node, (x, y) in zip(self.nodes, self._places(WIDTH, height - 20, 12), strict=True):
            parts.append(elements.rect(x - 14, y - 11, 28, 22, f"fg-node{' fg-best' if node.best else ''}", rx=6.0))
            parts.append(elements.text(x, y + 4, node.token, "fg-t fg-mid fg-strong" if node.best else "fg-t fg-mid"))
        parts.append(elements.text(WIDTH / 2, height, f"tokens generated: 0 to {n_steps}", "fg-t fg-mid"))
        return elements.drawing(WIDTH, height + 8, parts, title=self.title, description=self.description, key=key)

    def small(self) -> str:
        """Return the tree without tokens."""
        width, height = SMALL
        parts = self._edges(width, height, 4)
        for node, (x, y) in zip(self.nodes, self._places(width, height, 4), strict=True):
            parts.append(elements.rect(x - 3, y - 3, 6, 6, f"fg-b fg-{1 if node.best else 0}", rx=3.0))
        return elements.drawing(width, height, parts)

    def _extent(self) -> tuple[int, int]:
        return max(node.row for node in self.nodes) + 1, max(node.step for node in self.nodes)

    def _places(self, width: float, height: float, margin: float) -> list[tuple[float, float]]:
        n_rows, n_steps = self._extent()
        counts = {step: sum(node.step == step for node in self.nodes) for step in range(n_steps + 1)}
        places = []
        for node in self.nodes:
            across = (width - 2 * margin - 12) / max(n_steps, 1)
            down = height / n_rows
            lead = (n_rows - counts[node.step]) / 2 * down
            places.append((margin + 6 + node.step * across, lead + (node.row + 0.5) * down))
        return places

    def _edges(self, width: float, height: float, margin: float) -> list[str]:
        places = self._places(width, height, margin)
        parts = []
        for node, (x, y) in zip(self.nodes, places, strict=True):
            if node.parent is not None:
                from_x, from_y = places[node.parent]
                parts.append(elements.line(from_x, from_y, x, y, "fg-l fg-1" if node.best else "fg-l fg-0"))
        return parts
