"""Files that a component writes: names, sizes and first lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gptkit.docs.figures import elements
from gptkit.docs.figures.figure import SMALL

__all__ = ["Files", "WrittenFile", "written_files"]

WIDTH = 340.0
_MOST = 9
_COLUMNS = 50
"""Characters of a line of text that are shown."""


@dataclass(frozen=True)
class WrittenFile:
    """A file.

    Attributes:
        name: its path below the directory that is shown.
        size: bytes.
        lines: its first lines, for a file of text.
    """

    name: str
    size: int
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Files:
    """Files with bars of their sizes."""

    title: str
    files: Sequence[WrittenFile]
    description: str = ""

    def draw(self, key: str) -> str:
        """Return each file with its size and its first lines."""
        largest = max((file.size for file in self.files), default=1) or 1
        parts, y = [], 14.0
        for file in self.files:
            size = _bytes(file.size)
            room = int((WIDTH - 16 - 6.2 * len(size)) / 6.6)
            parts.append(elements.text(0, y, _cut(file.name, room), "fg-t fg-strong"))
            parts.append(elements.text(WIDTH, y, size, "fg-t fg-end"))
            parts.append(elements.rect(0, y + 5, WIDTH, 4, "fg-track", rx=2.0))
            parts.append(elements.rect(0, y + 5, max(3.0, WIDTH * file.size / largest), 4, "fg-b fg-1", rx=2.0))
            for line in file.lines:
                y += 15
                parts.append(elements.text(0, y + 7, _cut(line, _COLUMNS).replace(" ", "\u00a0"), "fg-t fg-mono"))
            y += 32
        return elements.drawing(WIDTH, y - 12, parts, title=self.title, description=self.description, key=key)

    def small(self) -> str:
        """Return a sheet for each of the first files."""
        width, height = SMALL
        parts = []
        for index in range(min(len(self.files), 4)):
            x = 12 + index * 25
            parts.append(elements.rect(x, 16, 20, 40, "fg-node", rx=3.0))
            parts += [
                elements.line(x + 4, 26 + 7 * row, x + (16 if row % 2 else 12), 26 + 7 * row, "fg-l fg-1")
                for row in range(4)
            ]
        return elements.drawing(width, height, parts)


def written_files(path: Path, n_lines: int = 0) -> list[WrittenFile]:
    """Return the files at a path, a file or a directory, the largest first.

    Args:
        path: the path.
        n_lines: number of lines of a text to show.
    """
    below = path.parent if path.is_file() else path
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    made = [WrittenFile(file.relative_to(below).as_posix(), file.stat().st_size, _lines(file, n_lines)) for file in files]
    return sorted(made, key=lambda file: -file.size)[:_MOST]


def _lines(file: Path, count: int) -> tuple[str, ...]:
    if not count:
        return ()
    text = file.read_bytes()[:4096]
    if b"\0" in text:
        return ()
    return tuple(text.decode("utf-8", errors="replace").splitlines()[:count])


def _cut(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    head = (room - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (room - 1 - head) :]}"


def _bytes(size: int) -> str:
    for unit, name in ((10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"
