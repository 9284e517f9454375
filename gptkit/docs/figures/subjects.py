"""The component to draw, in the configurations that the conformance kit checks."""

from __future__ import annotations

from gptkit.core.component import Component
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.testing import instances
from gptkit.testing.subject import Subject

__all__ = ["first", "named", "subjects"]


def subjects(cls: type[Component], registry: Registry) -> list[Subject]:
    """Return the component with its defaults, if they are a valid spec, then with each of its examples.

    Raises:
        GptkitError: there is none.
    """
    result = [Subject(spec, registry) for spec in instances(cls, registry)]
    if not result:
        raise GptkitError(
            "it has required fields and no `examples`", hint="Give it `examples` that a figure can be drawn of."
        )
    return result


def first(cls: type[Component], registry: Registry) -> Subject:
    """Return the component in its first configuration."""
    return subjects(cls, registry)[0]


def named(subject: Subject) -> str:
    """Return the fields in which a subject differs from the defaults, as in ``with window 4``; empty without any."""
    _, _, rest = subject.label.partition(" (")
    return f"with {rest.removesuffix(')').replace('=', ' ')}" if rest else ""
