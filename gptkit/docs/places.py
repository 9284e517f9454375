"""Keys of a spec file that take components of a kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from gptkit.core.component import Component
from gptkit.core.registry import Registry
from gptkit.core.spec import Spec

__all__ = ["DIRECTORY", "Place", "inside_components", "places"]

DIRECTORY = "components"
"""The directory of the pages about components."""


@dataclass(frozen=True)
class Place:
    """Path of keys in a spec file; `listed` if its value is a list of components."""

    path: tuple[str, ...]
    listed: bool = False

    @property
    def dotted(self) -> str:
        return ".".join(self.path)


def places(root: type[Spec], kind: str) -> list[Place]:
    """Return the keys of a spec class that take components of a kind, the shortest path first."""
    return sorted((place for place, held in _walk(root, ()) if held == kind), key=lambda place: len(place.path))


def inside_components(registry: Registry, kind: str) -> list[tuple[str, str, str]]:
    """Return the components that contain components of a kind: their kind, their name, and the field."""
    result = []
    for outer in registry.kinds():
        for name, entry in registry.entries(outer).items():
            inner = [place for place, held in _walk(entry.cls, ()) if held == kind]
            result += [(outer, name, place.dotted) for place in inner]
    return result


def _walk(spec: type[Spec], above: tuple[str, ...]) -> Iterator[tuple[Place, str]]:
    if len(above) > 4:
        return
    for name, info in spec.model_fields.items():
        for cls, listed in _classes(info.annotation, listed=False):
            if issubclass(cls, Component):
                if cls.is_kind():
                    yield Place((*above, name), listed), cls.kind
            else:
                yield from _walk(cls, (*above, f"{name}[]" if listed else name))


def _classes(annotation: Any, *, listed: bool) -> Iterator[tuple[type[Spec], bool]]:
    """Yield the spec classes in an annotation, and whether each is inside a list."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        yield annotation, listed
        return
    origin = get_origin(annotation)
    many = isinstance(origin, type) and issubclass(origin, Sequence)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return
    for argument in get_args(annotation):
        yield from _classes(argument, listed=listed or many)
