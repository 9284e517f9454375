"""Heat maps: a matrix of numbers as a grid of squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gptkit.docs.figures import elements
from gptkit.docs.figures.figure import SMALL

__all__ = ["Heat", "Outlined"]

WIDTH = 340.0


@dataclass(frozen=True)
class Outlined:
    """Groups of squares with an outline.

    Attributes:
        name: what they are, for the legend.
        color: number of the color.
        groups: row, first column and number of columns of each group.
    """

    name: str
    color: int
    groups: Sequence[tuple[int, int, int]]


@dataclass(frozen=True)
class Heat:
    """A matrix; the strength of a square's color is its number relative to the largest magnitude.

    Attributes:
        rows: the matrix, first row on top. Negative numbers have a second color; None is an empty square.
        square: whether squares have equal sides; otherwise they fill a panel of common height.
        row_names: a name for some of the rows, by index.
        column_names: a name for some of the columns, by index.
        outlined: groups of squares with an outline; they are not in the small form.
    """

    title: str
    x: str
    y: str
    rows: Sequence[Sequence[float | None]]
    description: str = ""
    square: bool = True
    row_names: Sequence[str] = ()
    column_names: Sequence[str] = ()
    outlined: Sequence[Outlined] = ()

    def draw(self, key: str) -> str:
        """Return the matrix with names of rows and columns."""
        n_rows, n_columns = len(self.rows), len(self.rows[0])
        left = 26.0 + 6.2 * max((len(name) for name in self.row_names), default=0)
        room = WIDTH - left - 6
        width = room / n_columns
        height = width if self.square else min(190.0 / n_rows, width)
        if self.square and height * n_rows > 250:
            width = height = 250.0 / n_rows
        top = 6.0
        parts = self._squares(left, top, width, height)
        bottom = top + height * n_rows
        parts.append(elements.rect(left, top, width * n_columns, height * n_rows, "fg-frame"))
        for each in self.outlined:
            for row, column, count in each.groups:
                x, y = left + column * width + 1, top + row * height + 1
                parts.append(elements.rect(x, y, count * width - 2, height - 2, f"fg-o fg-{each.color}", rx=2.0))
        for index, name in enumerate(self.row_names):
            if name:
                parts.append(elements.text(left - 5, top + height * (index + 0.5) + 4, name, "fg-t fg-end"))
        for index, name in enumerate(self.column_names):
            if name:
                parts.append(elements.text(left + width * (index + 0.5), bottom + 14, name, "fg-t fg-mid"))
        below = bottom + (30 if any(self.column_names) else 16)
        parts.append(elements.text(left + width * n_columns / 2, below, self.x, "fg-t fg-mid"))
        turn = f"rotate(-90 12 {elements.number((top + bottom) / 2)})"
        parts.append(elements.text(12, (top + bottom) / 2, self.y, "fg-t fg-mid", transform=turn))
        x = left
        for each in self.outlined:
            parts.append(elements.rect(x + 1, below + 11, 14, 10, f"fg-o fg-{each.color}", rx=2.0))
            parts.append(elements.text(x + 21, below + 20, each.name))
            x += 34 + 6.4 * len(each.name)
        below += 18 if self.outlined else 0
        return elements.drawing(WIDTH, below + 6, parts, title=self.title, description=self.description, key=key)

    def small(self) -> str:
        """Return the matrix alone."""
        width, height = SMALL
        n_rows, n_columns = len(self.rows), len(self.rows[0])
        across, down = (width - 8) / n_columns, (height - 8) / n_rows
        if self.square:
            across = down = min(across, down)
        left = (width - across * n_columns) / 2
        frame = elements.rect(left, 4, across * n_columns, down * n_rows, "fg-frame")
        return elements.drawing(width, height, [*self._squares(left, 4, across, down), frame])

    def _squares(self, left: float, top: float, width: float, height: float) -> list[str]:
        largest = max((abs(value) for row in self.rows for value in row if value is not None), default=0.0) or 1.0
        shapes: dict[tuple[int, int], list[str]] = {}
        for down, row in enumerate(self.rows):
            for across, value in enumerate(row):
                level = 0 if not value else max(1, round(10 * abs(value) / largest))
                if level:
                    corner = f"M{elements.number(left + across * width)} {elements.number(top + down * height)}"
                    shape = f"h{elements.number(width)}v{elements.number(height)}h{elements.number(-width)}z"
                    shapes.setdefault((1 if value and value > 0 else 2, level), []).append(corner + shape)
        return [
            f'<path class="fg-h fg-{color}" fill-opacity="{level / 10:g}" d="{"".join(squares)}"/>'
            for (color, level), squares in sorted(shapes.items())
        ]
