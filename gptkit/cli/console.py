"""Output of the command line: results on stdout, messages and progress on stderr.

Both adapt to the terminal's width and colors, and are plain text without a terminal or with NO_COLOR.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "Column",
    "duration",
    "heading",
    "label",
    "note",
    "out",
    "plural",
    "printable",
    "stderr",
    "stdout",
    "table",
    "warn",
    "write",
]

Column: TypeAlias = str | tuple[str, dict[str, Any]]
"""A title, or a title and options of rich's `add_column`."""


def stdout() -> Console:
    """Return the console for results."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def stderr() -> Console:
    """Return the console for errors, warnings and progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def out(text: str = "") -> None:
    """Print a line of the result without wrapping."""
    typer.echo(text)  # not with rich: importing it takes a seventh of the time of `gptkit check`


def note(text: str, style: str = "") -> None:
    """Print a line on stderr."""
    _to_stderr((text, style))


def notes(quiet: bool) -> Callable[[str], None]:
    """Return the function that receives lines of progress: `note`, or one that ignores them."""
    return (lambda text: None) if quiet else note


def warn(text: str) -> None:
    """Print a warning on stderr."""
    label("warning", "bold yellow", text)


def label(word: str, style: str, *parts: str | tuple[str, str]) -> None:
    """Print a labeled line on stderr, ``error: …``; parts are strings, or strings with their styles."""
    _to_stderr((f"{word}: ", style), *parts)


def _to_stderr(*parts: str | tuple[str, str]) -> None:
    from rich.text import Text

    console = stderr()
    # Lines are wrapped for terminals only.
    console.print(Text.assemble(*parts), soft_wrap=not console.is_terminal)


def heading(text: str) -> None:
    """Print a section title with an empty line above it."""
    console = stdout()
    console.print()
    console.print(text, style="bold", soft_wrap=True)


def table(
    columns: Sequence[str | tuple[str, dict[str, Any]]], rows: Sequence[Sequence[Any]], *, header: bool = True
) -> Table:
    """Return a table without borders; values that are too long for their column continue on the next line."""
    from rich.table import Table

    made = Table(box=None, show_header=header, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        title, options = (column, {}) if isinstance(column, str) else column
        made.add_column(title, **{"overflow": "fold", **options})
    for row in rows:
        made.add_row(*(cell if hasattr(cell, "__rich_console__") else str(cell) for cell in row))
    return made


def printable(text: str) -> str:
    """Replace control characters in generated text, which a terminal would interpret."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def write(text: str) -> None:
    """Write generated text to stdout at once; in a terminal without control characters."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def plural(number: int, word: str) -> str:
    """Return a number with its noun: ``1 error``, ``2 errors``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it: ``3.2 min``."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"
