"""Base of mutants: a built-in component with one error, and the check that must fail."""

from __future__ import annotations

from typing import Any, ClassVar

from gptkit.core.component import Component

__all__ = ["ANYTHING", "Mutant", "WithRuntime", "become"]

ANYTHING = ("*",)
"""Checks that may fail for mutants with random or missing results."""


class Mutant(Component):
    """First base of a mutant; the second is its correct twin.

    Class variables:
        caught_by: the check that must fail.
        also: further checks that necessarily fail.
        twin_class: the correct twin, if it is not the second base.
    """

    caught_by: ClassVar[str]
    also: ClassVar[tuple[str, ...]] = ()
    twin_class: ClassVar[type[Component] | None] = None

    @classmethod
    def forget(cls) -> None:
        """Discard what earlier tests of this process left in the class."""

    @classmethod
    def twin(cls, spec: Component) -> Component:
        """Return the correct component with the mutant's configuration."""
        twin = cls.twin_class or next(base for base in cls.__bases__ if not issubclass(base, Mutant))
        names = [name for name in twin.model_fields if name != "name" and name in type(spec).model_fields]
        return twin.model_validate({"name": twin.component_name(), **{name: getattr(spec, name) for name in names}})


class WithRuntime(Mutant):
    """Mutant whose module has the class `runtime_class`, a subclass of its twin's."""

    runtime_class: ClassVar[type]

    def build(self, *arguments: Any, **options: Any) -> Any:
        twin: Any = super()
        return become(twin.build(*arguments, **options), self.runtime_class)


def become(made: Any, cls: type) -> Any:
    """Change the class of an object to a subclass and return it."""
    made.__class__ = cls
    return made
