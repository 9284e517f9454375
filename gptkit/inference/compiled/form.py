"""Forms of a decode step: each is compiled by itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ONE_TOKEN", "WIDTHS", "StepForm"]

WIDTHS = (1, 4, 8, 16)
"""Numbers of tokens of each row that a compiled step processes. Speculative decoding verifies 2 to 16 tokens at once; fewer
than a width are filled up."""


@dataclass(frozen=True)
class StepForm:
    """Form of a decode step.

    Attributes:
        many: for two rows or more, whose number is a symbol; else for one row.
        width: number of tokens of each row, one of `WIDTHS`.
        keeps_hidden: the step adds the vectors that the head receives to the cache (`Cache.hidden`).
    """

    many: bool = False
    width: int = 1
    keeps_hidden: bool = False


ONE_TOKEN = StepForm()
"""The step of plain decoding of one text."""
