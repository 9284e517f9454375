"""Formulas of components, typeset as MathML, which browsers display by themselves."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec

from gptkit.core.errors import GptkitError

__all__ = ["available", "typeset"]


def available() -> bool:
    """Return whether formulas can be typeset: the extra `docs` installs latex2mathml."""
    return find_spec("latex2mathml") is not None


@cache
def typeset(latex: str, owner: str) -> str:
    """Return formulas as a block of HTML that Markdown keeps as it is.

    Args:
        latex: one formula a line; a line may wrap at each ``\\qquad``, and continues after one and after ``\\\\``.
        owner: the component, for messages.

    Raises:
        GptkitError: a formula is not valid, or uses a command that is not known.
    """
    lines = re.sub(r"(\\qquad|\\\\)[ \t]*\n", r"\1 ", latex.strip()).splitlines()
    rows = ["".join(_math(part, owner) for part in re.split(r"\\qquad\b", line)) for line in lines]
    return "\n".join(['<div class="formula">', *(f"<div>{row}</div>" for row in rows), "</div>"])


def _math(latex: str, owner: str) -> str:
    from latex2mathml.converter import convert

    try:
        result = str(convert(latex.strip(), display="block"))
    except Exception as error:
        raise GptkitError(
            f"the formula of {owner} is not valid: {type(error).__name__} in {latex.strip()!r}", hint="Correct its LaTeX."
        ) from error
    if unknown := re.search(r"\\\w+", re.sub(r"<[^>]*>", " ", result)):
        raise GptkitError(
            f"the formula of {owner} uses an unknown command, {unknown[0]}",
            hint="Use commands that latex2mathml supports, such as \\operatorname{softmax}.",
        )
    return result.replace('display="block"', 'display="block" class="formula-part"')
