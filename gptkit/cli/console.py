"""Where the command line writes: results to stdout, everything about them to stderr.

Both follow the terminal: as wide as it is, coloured where it shows colours, and plain text where there is no terminal or
NO_COLOR is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["Column", "heading", "label", "note", "out", "plural", "printable", "stderr", "stdout", "table", "warn"]

Column: TypeAlias = str | tuple[str, dict[str, Any]]
"""A title, or a title and options of rich's `add_column`."""


def stdout() -> Console:
    """The console of results."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def stderr() -> Console:
    """The console of errors, warnings and progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def out(text: str = "") -> None:
    """A line of the result, exactly as it is, however wide the terminal."""
    stdout().print(text, soft_wrap=True)


def note(text: str, style: str = "") -> None:
    """A line on stderr."""
    _to_stderr((text, style))


def warn(text: str) -> None:
    """A warning on stderr."""
    label("warning", "bold yellow", text)


def label(word: str, style: str, *parts: str | tuple[str, str]) -> None:
    """A line on stderr behind a word that says what it is, ``error: …``; parts are texts, or texts with their styles."""
    _to_stderr((f"{word}: ", style), *parts)


def _to_stderr(*parts: str | tuple[str, str]) -> None:
    from rich.text import Text

    console = stderr()
    # A terminal breaks lines between words; in files and pipes a line stays a line.
    console.print(Text.assemble(*parts), soft_wrap=not console.is_terminal)


def heading(text: str) -> None:
    """The title of a part of a longer result, with an empty line above it."""
    console = stdout()
    console.print()
    console.print(text, style="bold", soft_wrap=True)


def table(
    columns: Sequence[str | tuple[str, dict[str, Any]]], rows: Sequence[Sequence[Any]], *, header: bool = True
) -> Table:
    """A table without lines around it."""
    from rich.table import Table

    made = Table(box=None, show_header=header, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        title, options = (column, {}) if isinstance(column, str) else column
        made.add_column(title, **options)
    for row in rows:
        made.add_row(*(cell if hasattr(cell, "__rich_console__") else str(cell) for cell in row))
    return made


def printable(text: str) -> str:
    """Text that a model wrote, which may be anything, without the control characters that a terminal obeys."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def plural(number: int, word: str) -> str:
    """``1 mistake``, ``2 mistakes``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
