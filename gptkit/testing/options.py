"""Other values of a component's fields, to check every option of it."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from gptkit.core.component import Component
from gptkit.core.registry import Registry

__all__ = ["changed_fields", "other_values"]

_INTEGERS = (1, 2, 3, 4, 6, 8, 16)
_NUMBERS = (-0.5, 0.0, 0.3, 0.5, 1.5, 7.0)
_SIZES = ((2.0,), (1.0, 3.0), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0))


def changed_fields(spec: Component, registry: Registry) -> Iterator[tuple[str, Component]]:
    """Yield copies of a spec, each with another value of one field, and a name for messages: ``scale=0.5``.

    Enumerations, flags and nested components have every value; numbers have some within their limits. Values that the
    component rejects are omitted.
    """
    for name, info in type(spec).model_fields.items():
        if name == "name":
            continue
        old = getattr(spec, name)
        for value in other_values(info, old, registry):
            fields = {field: getattr(spec, field) for field in type(spec).model_fields}
            try:
                changed = type(spec).model_validate({**fields, name: value}, context={"registry": registry})
            except ValidationError:
                continue
            if getattr(changed, name) != old:
                yield f"{name}={_shown(value)}", changed


def other_values(info: FieldInfo, value: Any, registry: Registry) -> list[Any]:
    """Return values of a field that differ from the given one."""
    result: list[Any] = []
    for each in _values(info.annotation, registry):
        if each != value and each not in result and _within(info, each):
            result.append(each)
    return result


def _values(annotation: Any, registry: Registry) -> list[Any]:
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return [None]
    if annotation is bool:
        return [False, True]
    if annotation is int:
        return list(_INTEGERS)
    if annotation is float:
        return list(_NUMBERS)
    if annotation is str:
        return ["other"]
    if origin is Literal:
        return list(args)
    if origin in (Union, types.UnionType):
        return [value for arg in args for value in _values(arg, registry)]
    if origin is tuple:
        return [list(size) for size in _SIZES] if args[0] is float else [[value] for value in _values(args[0], registry)]
    if isinstance(annotation, type) and issubclass(annotation, Component) and annotation.is_kind():
        return [
            component for name in registry.names(annotation.kind) for component in _component(annotation, name, registry)
        ]
    return []


def _component(kind: type[Component], name: str, registry: Registry) -> list[Any]:
    """Return a component with its defaults; with its first example if it requires a field."""
    cls = registry.component(kind.kind, name)
    required = [field for field, info in cls.model_fields.items() if info.is_required() and field != "name"]
    if required and not cls.examples:
        return []
    return [{"name": name, **(cls.examples[0] if required else {})}]


def _within(info: FieldInfo, value: Any) -> bool:
    if value is None or isinstance(value, (bool, str, list, dict)):
        return True
    for limit in info.metadata:
        if (
            (isinstance(limit, Ge) and not value >= limit.ge)
            or (isinstance(limit, Gt) and not value > limit.gt)
            or (isinstance(limit, Le) and not value <= limit.le)
            or (isinstance(limit, Lt) and not value < limit.lt)
        ):
            return False
    return True


def _shown(value: Any) -> str:
    return str(value["name"] if isinstance(value, dict) else value)
