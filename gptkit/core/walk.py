"""The walk over a spec tree: every component in it with its path, and a copy of the tree with components changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from gptkit.core.component import Component
from gptkit.core.spec import Spec

__all__ = ["Path", "components", "map_components"]

Path = tuple[str | int, ...]
T = TypeVar("T")


def components(value: Any, path: Path = ()) -> Iterator[tuple[Path, Component]]:
    """Every component in a spec, outer ones before those inside them, in the order of the fields.

    Args:
        value: a spec, or what a field of one holds: a list or mapping of specs, or a plain value.
        path: where `value` is; the paths of the components start with it.
    """
    if isinstance(value, Component):
        yield path, value
    for key, child in _children(value):
        yield from components(child, (*path, key))


def map_components(value: T, change: Callable[[Path, Component], Component], path: Path = ()) -> T:
    """A copy of a spec in which every component is replaced by what `change` returns for it.

    An outer component is changed first, then the components inside the result. What stays the same is not copied.

    Args:
        value: as for `components`.
        change: called with a component and its path.
        path: where `value` is.
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
