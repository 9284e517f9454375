"""Data with source locations, and the rule by which one spec overrides another.

A spec file is read into a tree of `Node`, so that each value has its location after files and overrides are merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from pydantic import BaseModel

__all__ = ["NOWHERE", "Node", "Place", "Scalar", "lift", "merge", "merge_nodes", "merge_roots"]

Scalar: TypeAlias = str | int | float | bool | None


class Place(NamedTuple):
    """Source location. Line and column count from 1, and are None for values that are not from a file."""

    file: str | None = None
    line: int | None = None
    column: int | None = None


NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its location and the location of its key (None in a list and at the root)."""

    value: Scalar | dict[str, Node] | list[Node]
    place: Place = NOWHERE
    key: Place | None = None

    def plain(self) -> Any:
        """Return the value as plain data, without locations."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def below(self, value: Scalar | dict[str, Node] | list[Node]) -> Node:
        """Return this node with another value."""
        return Node(value, self.place, self.key)

    def child(self, part: str | int) -> Node | None:
        """Return the node under a key or index, or None."""
        if isinstance(self.value, dict) and isinstance(part, str):
            return self.value.get(part)
        if isinstance(self.value, list) and isinstance(part, int) and 0 <= part < len(self.value):
            return self.value[part]
        return None


def lift(data: Any, place: Place = NOWHERE) -> Node:
    """Convert plain data, or a spec, to nodes with one location."""
    if isinstance(data, BaseModel):
        data = data.model_dump()
    if isinstance(data, Mapping):
        return Node({str(key): lift(value, place) for key, value in data.items()}, place)
    if isinstance(data, (list, tuple)):
        return Node([lift(value, place) for value in data], place)
    return Node(data, place)


def merge(base: Any, over: Any) -> Any:
    """Return `base` merged with `over`, by the rule of ``extends``, ``--set`` and per-layer overrides.

    Mappings merge key by key; lists and scalars replace. Components are the exception, since their fields differ: a mapping
    with another ``name`` than the base's replaces the whole component, and so does another name alone. The same name keeps
    the base's fields, and a mapping without a name overrides fields of the base::

        merge({"name": "rms", "eps": 1e-6}, {"name": "layer"})   →  {"name": "layer"}
        merge({"name": "rms", "eps": 1e-6}, "rms")               →  {"name": "rms", "eps": 1e-6}
        merge("rms", {"eps": 1e-6})                              →  {"name": "rms", "eps": 1e-6}

    Neither argument is changed.
    """
    return merge_nodes(lift(base), lift(over)).plain()


def merge_nodes(base: Node, over: Node) -> Node:
    """Merge nodes as `merge` does; every part of the result keeps its location."""
    if isinstance(over.value, dict):
        if isinstance(base.value, str):
            base = base.below({"name": Node(base.value, base.place)})
        if not isinstance(base.value, dict) or _another(base.value, over.value):
            return over
        return merge_roots(base, over)
    if isinstance(over.value, str) and isinstance(base.value, dict) and not _another(base.value, {"name": over}):
        return base if "name" in base.value else over
    return over


def merge_roots(base: Node, over: Node) -> Node:
    """Merge the nodes of two whole files, whose ``name`` is a title, not that of a component."""
    assert isinstance(base.value, dict)
    assert isinstance(over.value, dict)
    merged = dict(base.value)
    for key, node in over.value.items():
        merged[key] = merge_nodes(merged[key], node) if key in merged else node
    # A merged mapping has the location of the last mapping in a file; an override has no line.
    return (base if over.place.line is None else over).below(merged)


def _another(base: dict[str, Node], over: dict[str, Node]) -> bool:
    return "name" in base and "name" in over and base["name"].value != over["name"].value
