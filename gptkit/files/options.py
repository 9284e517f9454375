"""Components given as the value of one option of a command: a name, or a YAML mapping with fields."""

from __future__ import annotations

from typing import TypeVar

from gptkit.core.errors import Problem, SpecError
from gptkit.core.spec import Spec
from gptkit.files.nodes import lift
from gptkit.files.overrides import apply_override
from gptkit.files.validation import validate_data

__all__ = ["parse_option"]

S = TypeVar("S", bound=Spec)


def parse_option(holder: type[S], field: str, text: str, option: str, *, skip: int = 1) -> S:
    """Parse a text as the value of one field, and report errors with the option that it was given to.

    Args:
        holder: a spec with the field.
        field: the field.
        text: YAML: a name, a mapping, or a list of these.
        option: the option and its value as the user wrote them, for messages.
        skip: number of path entries that lead to the component and mean nothing to the user.

    Raises:
        SpecError: the text is not YAML, or its content is invalid.
    """
    try:
        return validate_data(apply_override(lift({}), f"{field}={text}").plain(), holder)
    except SpecError as error:
        raise SpecError([Problem(problem.path[skip:], problem.message, option) for problem in error.problems]) from None
