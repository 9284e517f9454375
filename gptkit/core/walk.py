"""Traversal of a spec tree: all components with their paths, and copies with changed components."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from gptkit.core.component import Component
from gptkit.core.spec import Spec

__all__ = ["Path", "components", "map_components"]

Path = tuple[str | int, ...]
T = TypeVar("T")


def components(value: Any, path: Path = ()) -> Iterator[tuple[Path, Component]]:
    """Yield every component in a spec, outer ones first, in the order of the fields.

    Args:
        value: a spec, or the value of a field: a list or mapping of specs, or a plain value.
        path: path of `value`, the prefix of the yielded paths.
    """
    if isinstance(value, Component):
        yield path, value
    for key, child in _children(value):
        yield from components(child, (*path, key))


def map_components(value: T, change: Callable[[Path, Component], Component], path: Path = ()) -> T:
    """Return a copy of a spec in which every component is replaced by the result of `change`.

    An outer component is changed first, then the components inside the result. Unchanged parts are not copied.

    Args:
        value: as for `components`.
        change: function of a component and its path.
        path: path of `value`.
    """
    changed: Any = change(path, value) if isinstance(value, Component) else value
    replaced = {}
    for key, child in _children(changed):
        mapped = map_components(child, change, (*path, key))
        if mapped is not child:
            replaced[key] = mapped
    mapped_value: T = _with_children(changed, replaced) if replaced else changed
    return mapped_value


def _children(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, Spec):
        for name in type(value).model_fields:
            yield name, getattr(value, name)
    elif isinstance(value, (tuple, list)):
        yield from enumerate(value)
    elif isinstance(value, Mapping):
        yield from value.items()


def _with_children(value: Any, replaced: Mapping[Any, Any]) -> Any:
    if isinstance(value, Spec):
        return value.model_copy(update=replaced)
    if isinstance(value, Mapping):
        return {**value, **replaced}
    return type(value)(replaced.get(index, child) for index, child in enumerate(value))
