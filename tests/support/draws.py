"""Random specs from the fields that components declare: the same on every machine for a generator's seed.

Hypothesis mixes constants of the modules that are loaded into what it draws, so its examples of a seed differ between
machines, and with the tests that ran earlier.
"""

from __future__ import annotations

import types
from random import Random
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.core.spec import Spec

__all__ = ["draw_component", "draw_fields", "draw_named", "drawn_names"]

OUTSIDE = {("head", "distillation")}
"""Components that are not drawn: they read other runs."""

SKIPPED = {"vocab_size", "file", "path", "encoding", "repeat"}
"""Fields that are not drawn: files, and sizes that the tests set."""

SPECIAL = (0.0, 1.0, 0.5, 6e-8, 1e-3)
"""Floats that are drawn as often as the bounds of a field."""


def drawn_names(kind: str, registry: Registry) -> list[str]:
    """Return the names of the components of a kind that are drawn."""
    return sorted(name for name in registry.names(kind) if (kind, name) not in OUTSIDE)


def draw_component(chance: Random, kind: str, registry: Registry, depth: int = 2) -> dict[str, Any]:
    """Draw a component of a kind: its name, with some of its fields or one of its examples."""
    return draw_named(chance, kind, chance.choice(drawn_names(kind, registry)), registry, depth)


def draw_named(chance: Random, kind: str, name: str, registry: Registry, depth: int = 2) -> dict[str, Any]:
    """Draw the fields of a component, or one of its examples."""
    cls = registry.component(kind, name)
    if cls.examples and (depth <= 0 or chance.random() < 0.5):
        return {"name": name, **chance.choice(cls.examples)}
    return {"name": name, **draw_fields(chance, cls, registry, depth)}


def draw_fields(chance: Random, cls: type[Spec], registry: Registry, depth: int = 2) -> dict[str, Any]:
    """Draw some fields of a spec, few of them in most cases, with values within their types and bounds."""
    names = [name for name in cls.model_fields if name != "name" and name not in SKIPPED]
    chosen = chance.sample(names, chance.randint(0, chance.randint(0, len(names))))
    fields = {name: cls.model_fields[name] for name in chosen}
    return {name: _value(chance, field.annotation, _bounds(field), registry, depth - 1) for name, field in fields.items()}


def _bounds(field: FieldInfo) -> tuple[float, float]:
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


def _value(chance: Random, annotation: Any, limits: tuple[float, float], registry: Registry, depth: int) -> Any:
    """Draw a value of a type; bounds more often than other numbers."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return None
    if annotation is bool:
        return chance.random() < 0.5
    if annotation is int:
        return _integer(chance, *limits)
    if annotation is float:
        return _float(chance, *limits)
    if annotation is str:
        return chance.choice(["a", "the", "x y"])
    if origin is Literal:
        return chance.choice(args)
    if origin in (Union, types.UnionType):
        return _value(chance, chance.choice(args), limits, registry, depth)
    if origin is tuple:
        return [_value(chance, args[0], limits, registry, depth) for _ in range(chance.randint(0, 3))]
    if isinstance(annotation, type) and issubclass(annotation, Component) and annotation.is_kind():
        if depth <= 0:
            return chance.choice(_plain_names(annotation.kind, registry))
        return draw_component(chance, annotation.kind, registry, depth)
    raise NotImplementedError(f"no values of {annotation} are drawn")


def _integer(chance: Random, low: float, high: float) -> int:
    least = int(low) if low == int(low) else int(low) + 1
    greatest = max(int(high), least + 1)
    return chance.choice([least, greatest]) if chance.random() < 0.3 else chance.randint(least, greatest)


def _float(chance: Random, low: float, high: float) -> float:
    if chance.random() < 0.3:
        return chance.choice([low, high, *(number for number in SPECIAL if low < number < high)])
    return chance.uniform(low, high)


def _plain_names(kind: str, registry: Registry) -> list[str]:
    return [name for name in sorted(registry.names(kind)) if _needs_nothing(registry.component(kind, name))]


def _needs_nothing(cls: type[Component]) -> bool:
    return not any(field.is_required() for field in cls.model_fields.values())
