"""Random specs, drawn from the fields that the registry's components declare."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from gptkit.core.component import Component
from gptkit.core.registry import Registry, default_registry
from gptkit.core.spec import Spec

__all__ = ["component", "fields", "value"]

OUTSIDE = {("head", "distillation")}
"""Components that are not drawn: they read other runs."""

SKIPPED = {"vocab_size", "file", "path", "encoding", "repeat"}
"""Fields that are not drawn: files, and sizes that the tests set."""


def component(kind: str, depth: int = 2, registry: Registry | None = None) -> st.SearchStrategy[Any]:
    """Return a strategy for a component of a kind: its name, or a mapping with some of its fields.

    Args:
        registry: of the components; by default what is installed.
    """
    registry = registry or default_registry()
    drawn = [name for name in registry.names(kind) if (kind, name) not in OUTSIDE]
    names = [name for name in drawn if not registry.component(kind, name).examples]
    named = [name for name in drawn if name not in names]
    options = [
        fields(registry.component(kind, name), depth, registry).map(lambda drawn, name=name: {"name": name, **drawn})
        for name in names
    ]
    for name in named:
        cls = registry.component(kind, name)
        examples = [{"name": name, **example} for example in cls.examples]
        options.append(
            st.sampled_from(examples)
            if depth <= 0
            else st.one_of(st.sampled_from(examples), _with_name(cls, depth, registry))
        )
    return st.one_of(options)


def _with_name(cls: type[Component], depth: int, registry: Registry | None) -> st.SearchStrategy[Any]:
    return fields(cls, depth, registry).map(lambda drawn: {"name": cls.component_name(), **drawn})


def fields(cls: type[Spec], depth: int, registry: Registry | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for some fields of a spec, with values within their types and bounds."""
    optional = {
        name: value(field.annotation, bounds(field), depth - 1, registry)
        for name, field in cls.model_fields.items()
        if name != "name" and name not in SKIPPED
    }
    return st.fixed_dictionaries({}, optional=optional)


def bounds(field: FieldInfo) -> tuple[float, float]:
    """Return the minimum and maximum of a number, limited to a small range."""
    low, high = 0.0, 8.0
    for limit in field.metadata:
        if isinstance(limit, Ge):
            low = float(limit.ge)  # type: ignore[arg-type]
        elif isinstance(limit, Gt):
            low = float(limit.gt) + 0.25  # type: ignore[arg-type]
        elif isinstance(limit, Le):
            high = float(limit.le)  # type: ignore[arg-type]
        elif isinstance(limit, Lt):
            high = float(limit.lt) - 0.25  # type: ignore[arg-type]
    return low, max(low, high)


def value(
    annotation: Any, limits: tuple[float, float], depth: int, registry: Registry | None = None
) -> st.SearchStrategy[Any]:
    """Return a strategy for values of a type."""
    origin, args = get_origin(annotation), get_args(annotation)
    low, high = limits
    if annotation is type(None):
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.integers(int(low) if low == int(low) else int(low) + 1, max(int(high), int(low) + 1))
    if annotation is float:
        return st.floats(low, high, allow_nan=False, width=16)
    if annotation is str:
        return st.sampled_from(["a", "the", "x y"])
    if origin is Literal:
        return st.sampled_from(args)
    if origin in (Union, types.UnionType):
        return st.one_of([value(arg, limits, depth, registry) for arg in args])
    if origin is tuple:
        return st.lists(value(args[0], limits, depth, registry), max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, Component) and annotation.is_kind():
        if depth <= 0:
            return st.sampled_from(_plain_names(annotation.kind, registry))
        return component(annotation.kind, depth, registry)
    raise NotImplementedError(f"no strategy for {annotation}")


def _plain_names(kind: str, registry: Registry | None) -> list[str]:
    registry = registry or default_registry()
    return [name for name in registry.names(kind) if _needs_nothing(registry.component(kind, name))]


def _needs_nothing(cls: type[Component]) -> bool:
    return not any(field.is_required() for field in cls.model_fields.values())
