"""Tracing of pydantic's error locations through spec classes and data.

A location names more than keys: where a field is a union, it also names the branch that was tried. Walking the classes
along with the data distinguishes the two, and finds the class that a misspelled key belongs to.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gptkit.core.component import Component
from gptkit.core.errors import RegistryError
from gptkit.core.registry import Registry
from gptkit.core.spec import merge_with_default
from gptkit.files.nodes import merge

__all__ = ["Trace", "alternatives", "model_of", "trace"]

_MISSING = object()


@dataclass(frozen=True)
class Trace:
    """Field or value that an error location refers to."""

    path: tuple[str | int, ...]
    """The location without the names of union branches, with keys as the file writes them."""
    owner: type[BaseModel] | None
    """The class of the last part, whether it has such a field or not."""
    field: FieldInfo | None
    branched: bool
    """Whether the location named a branch of a union."""
    branch: tuple[tuple[str | int, ...], str] | None
    """The path of the first union of spec classes, and the class that was tried."""
    types: tuple[Any, ...] = ()
    """The types that a value at the location may have; empty where they are unknown."""
    data: Any = None
    """The value that the last part belongs to, merged with defaults."""


def trace(root: type[BaseModel], data: Any, location: Sequence[str | int], registry: Registry) -> Trace:
    """Follow a location from the root of a spec."""
    path: list[str | int] = []
    owner: type[BaseModel] | None = None
    field: FieldInfo | None = None
    branched = False
    branch: tuple[tuple[str | int, ...], str] | None = None
    types_here: list[Any] = [root]
    value: Any = data
    outer_value: Any = None
    host: tuple[type[BaseModel], Any] | None = None
    for part in location:
        named = [cls for cls in types_here if isinstance(cls, type) and cls.__name__ == part]
        if named and len(types_here) > 1:
            types_here, branched = named, True
            if issubclass(named[0], BaseModel):
                branch = branch or (tuple(path), named[0].__name__)
            continue
        model, outer_value = model_of(types_here, value, registry), value
        if model is not None and isinstance(part, str) and part in model.model_fields:
            owner, field = model, model.model_fields[part]
            written = _written(model, part, value)
            path.append(written)
            host, value = (model, value), merge_with_default(field, _child(value, written))
            types_here = list(alternatives(field.annotation))
        elif isinstance(value, (list, tuple)) and isinstance(part, int):
            owner = field = None
            if host is not None and path[-1:] == ["layers"]:
                value = _with_model_parts(*host, value[part] if 0 <= part < len(value) else _MISSING)
            else:
                value = _child(value, part)
            path.append(part)
            types_here = [inner for outer in types_here for inner in _inside(outer, part)]
        elif isinstance(value, Mapping) and part in value:
            owner, field = model, None
            path.append(part)
            value = value[part]
            types_here = [inner for outer in types_here for inner in _inside(outer, -1)]
        elif value is _MISSING or (model is not None and part == location[-1] and not branched):
            # Inside a default, or a key that the class lacks.
            owner, field = model, None
            path.append(part)
            value, types_here = _MISSING, []
        else:
            branched, types_here = True, []
    return Trace(tuple(path), owner, field, branched, branch, tuple(types_here), outer_value)


def _child(value: Any, part: str | int) -> Any:
    if isinstance(value, Mapping):
        return value.get(part, _MISSING)
    if isinstance(value, (list, tuple)) and isinstance(part, int) and 0 <= part < len(value):
        return value[part]
    return _MISSING


def _with_model_parts(model: type[BaseModel], value: Any, entry: Any) -> Any:
    """Return an entry of `layers` merged with the model's parts, as the model validates it."""
    if not isinstance(entry, Mapping):
        return entry
    shared = {key: value.get(key, field.default) for key, field in model.model_fields.items() if key != "layers"}
    shared = {key: base for key, base in shared.items() if isinstance(base, (str, Mapping))}
    return {**shared, **{key: merge(shared.get(key), over) for key, over in entry.items()}}


def _written(model: type[BaseModel], name: str, value: Any) -> str:
    """Return the key that the data uses for a field: its name, or a former one."""
    if isinstance(value, Mapping) and name not in value and issubclass(model, Component):
        for old, new in model.renamed_fields.items():
            if new == name and old in value:
                return old
    return name


def model_of(types_here: Sequence[Any], value: Any, registry: Registry) -> type[BaseModel] | None:
    """Return the spec class that a value is validated by."""
    for cls in types_here:
        if not (isinstance(cls, type) and issubclass(cls, BaseModel)):
            continue
        if not (issubclass(cls, Component) and cls.is_kind()):
            return cls
        name = value.get("name") if isinstance(value, Mapping) else value
        if isinstance(name, str):
            try:
                return registry.component(cls.kind, name)
            except RegistryError:
                return None
    return None


def alternatives(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation allows, with unions and `Annotated` resolved."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from alternatives(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for inner in get_args(annotation):
            yield from alternatives(inner)
    else:
        yield annotation


def _inside(annotation: Any, index: int) -> Iterator[Any]:
    """Yield the types of the items of a list, tuple or mapping type."""
    arguments = get_args(annotation)
    if not arguments or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return
    if get_origin(annotation) is tuple and Ellipsis not in arguments:
        if 0 <= index < len(arguments):
            yield from alternatives(arguments[index])
        return
    inner = arguments[0] if get_origin(annotation) is tuple else arguments[-1]
    yield from alternatives(inner)
