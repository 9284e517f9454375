"""What all mutants have in common: a built-in component with one thing wrong, and the check that must say so."""

from __future__ import annotations

from typing import Any, ClassVar

from gptkit.core.component import Component

__all__ = ["ANYTHING", "Mutant", "become"]

ANYTHING = ("*",)
"""For mutants that compute by chance, or not at all: every comparison may notice."""


class Mutant(Component):
    """First base of a mutant; the second is its correct twin.

    Class variables:
        caught_by: the check that must fail.
        also: further checks that cannot but fail.
        twin_class: the correct twin, where it is not the second base.
    """

    caught_by: ClassVar[str]
    also: ClassVar[tuple[str, ...]] = ()
    twin_class: ClassVar[type[Component] | None] = None

    @classmethod
    def twin(cls, spec: Component) -> Component:
        """The correct component, configured as the mutant is."""
        twin = cls.twin_class or next(base for base in cls.__bases__ if not issubclass(base, Mutant))
        names = [name for name in twin.model_fields if name != "name" and name in type(spec).model_fields]
        return twin.model_validate({"name": twin.component_name(), **{name: getattr(spec, name) for name in names}})


def become(made: Any, cls: type) -> Any:
    """The object, of a subclass of its class from now on: what it was built with stays as it is."""
    made.__class__ = cls
    return made
