"""A chain of samplers as it is written on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gptkit.core.errors import GptkitError, Problem, SpecError
from gptkit.core.registry import default_registry
from gptkit.core.spec import Spec
from gptkit.files import validate_data
from gptkit.files.nodes import lift
from gptkit.files.overrides import apply_override
from gptkit.kinds.sampler import SamplerSpec

__all__ = ["chain"]

_ANOTHER = re.compile(r",\s*[a-z][\w.-]*\s*(=|$)")


class _Chain(Spec):
    sampler: tuple[SamplerSpec, ...]


def chain(links: Sequence[str]) -> tuple[SamplerSpec, ...]:
    """The samplers of ``["temperature=0.8", "top-k=40", "greedy"]``; a mapping in YAML may stand for any of them.

    Raises:
        SpecError: one of them is wrong.
        GptkitError: there is no such sampler, or it takes no value.
    """
    found: list[SamplerSpec] = []
    for link in links:
        # One by one, so that a mistake is reported with the option that it is in.
        place = f"--sampler {link}"
        try:
            tree = apply_override(lift({}), f"sampler=[{_link(link)}]")
            found += validate_data(tree.plain(), _Chain).sampler
        except SpecError as error:
            problems = [Problem(problem.path[2:], problem.message, place) for problem in error.problems]
            raise SpecError(problems) from None
    return tuple(found)


def _link(text: str) -> str:
    """``top-k=40`` as YAML: a value goes to the first field of the sampler."""
    name, equals, value = text.partition("=")
    if text.lstrip().startswith("{"):
        return text
    if _ANOTHER.search(text):
        parts = " ".join(f"--sampler {part.strip()}" for part in text.split(","))
        raise GptkitError(f"--sampler {text} is more than one link", hint=f"Repeat --sampler: {parts}.")
    if not equals:
        return text
    fields = [field for field in default_registry().component("sampler", name).model_fields if field != "name"]
    if not fields:
        raise GptkitError(f"sampler {name!r} takes no value", hint=f"Write --sampler {name}.")
    return f"{{name: {name}, {fields[0]}: {value}}}"
