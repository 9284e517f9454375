"""Diagrams in notebooks."""

from __future__ import annotations

from gptkit.core import html
from gptkit.diagrams.drawing import svg
from gptkit.diagrams.outline import Outline

__all__ = ["notebook"]


def notebook(outline: Outline, text: str) -> str:
    """Return a diagram, and below it a spec's text, which is folded."""
    return svg(outline) + html.details("spec", html.code(text))
