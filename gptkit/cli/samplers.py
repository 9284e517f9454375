"""A chain of samplers as it is written on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from gptkit.errors import GptkitError
from gptkit.files import validate_data
from gptkit.files.nodes import lift
from gptkit.files.overrides import apply_override
from gptkit.kinds.sampler import SamplerSpec
from gptkit.registry import default_registry
from gptkit.spec import Spec

__all__ = ["chain"]


class _Chain(Spec):
    sampler: tuple[SamplerSpec, ...]


def chain(links: Sequence[str]) -> tuple[SamplerSpec, ...]:
    """The samplers of ``["temperature=0.8", "top-k=40", "greedy"]``; a mapping in YAML may stand for any of them.

    Raises:
        SpecError: one of them is wrong.
        GptkitError: there is no such sampler, or it takes no value.
    """
    items = ", ".join(_link(link) for link in links)
    return validate_data(apply_override(lift({}), f"sampler=[{items}]").plain(), _Chain).sampler


def _link(text: str) -> str:
    """``top-k=40`` as YAML: a value goes to the first field of the sampler."""
    name, equals, value = text.partition("=")
    if not equals or text.lstrip().startswith("{"):
        return text
    fields = [field for field in default_registry().component("sampler", name).model_fields if field != "name"]
    if not fields:
        raise GptkitError(f"sampler {name!r} takes no value", hint=f"Write --sampler {name}.")
    return f"{{name: {name}, {fields[0]}: {value}}}"
