"""Parse the precision given on the command line."""

from __future__ import annotations

from gptkit.core.errors import Problem, SpecError
from gptkit.files.nodes import lift
from gptkit.files.overrides import apply_override
from gptkit.kinds.precision import PrecisionSpec
from gptkit.runs.precisions import precision_of

__all__ = ["parsed"]


def parsed(text: str) -> PrecisionSpec:
    """Return a precision from its name, or from a YAML mapping with its fields.

    Raises:
        SpecError: the precision is invalid.
    """
    option = f"--precision {text}"
    try:
        tree = apply_override(lift({}), f"precision={text}")
        return precision_of(tree.plain()["precision"])
    except SpecError as error:
        raise SpecError([Problem(problem.path[1:], problem.message, option) for problem in error.problems]) from None
