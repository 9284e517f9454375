"""Help texts of commands as the terminal shows them."""

from __future__ import annotations

import inspect

__all__ = ["for_terminal"]

EXAMPLE = "For example:"
"""First words of a paragraph whose lines are commands."""


def for_terminal(text: str) -> str:
    """Return a help text with each paragraph in one line, which the terminal breaks at its width.

    The lines of an example stay as they are, and brackets are shown as they are.
    """
    from rich.markup import escape

    paragraphs = inspect.cleandoc(text).split("\n\n")
    return escape("\n\n".join(part if part.startswith(EXAMPLE) else " ".join(part.split()) for part in paragraphs))
