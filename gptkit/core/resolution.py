"""Resolution and checks of components at every depth, so that components need not call nested ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from gptkit.core.component import Component
from gptkit.core.errors import Problem
from gptkit.core.failing import INTENTIONAL, failure, reported
from gptkit.core.spec import validation_error
from gptkit.core.walk import Path, components, map_components

__all__ = ["in_context", "problems", "resolve"]

C = TypeVar("C", bound=Component)


def resolve(spec: C, context: Any, path: Path = ()) -> C:
    """Return the spec with `resolved` applied to it and then to every component in it, at any depth.

    Args:
        spec: the spec.
        context: the build context of the outermost component; `Component.inner_context` derives those of nested ones.
        path: location of the spec, for error messages.

    Raises:
        ValidationError: a component's `resolved` raised, or did not return a component.
    """
    surroundings = _Surroundings(context)

    def change(at: Path, component: Component) -> Component:
        own_context = surroundings.context_at(at)
        try:
            resolved = component.resolved(own_context)
            if not isinstance(resolved, Component):
                raise TypeError(f"it returned {type(resolved).__name__}, not a spec")
        except INTENTIONAL:
            raise
        except Exception as error:
            message = failure(component, "resolved", error, _registry(own_context))
            raise validation_error([Problem((*path, *at), message)]) from error
        surroundings.enter(at, resolved, own_context)
        return resolved

    return map_components(spec, change)


def in_context(spec: Component, context: Any) -> Iterator[tuple[Path, Component, Any]]:
    """Yield a component and all nested ones, outer ones first, each with its path and its build context."""
    surroundings = _Surroundings(context)
    for path, component in components(spec):
        own_context = surroundings.context_at(path)
        surroundings.enter(path, component, own_context)
        yield path, component, own_context


def problems(spec: Component, context: Any) -> Iterator[Problem]:
    """Yield the problems of a component and all nested ones, including exceptions, located below the component."""
    for path, component, own_context in in_context(spec, context):
        try:
            own_problems = reported(component.problems(own_context))
        except INTENTIONAL:
            raise
        except Exception as error:
            own_problems = [Problem((), failure(component, "problems", error, _registry(own_context)))]
        for problem in own_problems:
            yield problem.below(*path)


class _Surroundings:
    """Build contexts by path in a spec tree that is walked from the outside in."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.entered: dict[Path, tuple[Component, Any]] = {}

    def enter(self, path: Path, component: Component, context: Any) -> None:
        self.entered[path] = (component, context)

    def context_at(self, path: Path) -> Any:
        for length in range(len(path) - 1, -1, -1):
            if path[:length] in self.entered:
                component, context = self.entered[path[:length]]
                return component.inner_context(str(path[length]), context)
        return self.context


def _registry(context: Any) -> Any:
    return getattr(context, "registry", None)
