"""Overrides from the command line: ``--set model.position=alibi``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, get_args, get_origin

from gptkit.core.errors import Problem, SpecError
from gptkit.core.yaml import plain_scalar
from gptkit.files.building import MAX_DEPTH, refuse_characters
from gptkit.files.nodes import Node, Place, Scalar, merge_nodes, merge_roots
from gptkit.files.tracing import alternatives
from gptkit.files.yaml_text import parse_yaml

__all__ = ["TypesAt", "apply_override", "apply_overrides"]

_SHOWN = 200
"""Number of characters of another override in a message."""

TypesAt = Callable[[Any, Sequence[str | int]], Sequence[Any]]
"""The types that a spec's value at a path may have, given the spec as plain data; none where they are unknown."""


def apply_override(root: Node, text: str, types_at: TypesAt | None = None) -> Node:
    """Return the tree merged with one ``dotted.path=value``, by the rule of `gptkit.files.merge`.

    The value is YAML: ``model.attention={name: simple}``. Integers index lists: ``model.layers.0.position=none``. For a
    field that is a text, the value is read literally, ``#``, ``*`` and ``:`` included, unless it is quoted.

    Args:
        root: the spec.
        text: the override.
        types_at: returns the types of the value at a path; without it every value is read as YAML.

    Raises:
        SpecError: the override cannot be read, or its path does not exist.
    """
    return _Override(text, types_at).apply(root)


def apply_overrides(root: Node, texts: Sequence[str], types_at: TypesAt | None = None) -> Node:
    """Return the tree merged with overrides in order, none of which may undo an earlier one.

    Args:
        root: the spec.
        texts: the overrides; see `apply_override`.
        types_at: returns the types of the value at a path.

    Raises:
        SpecError: an override cannot be read, its path does not exist, or a later one replaces its value.
    """
    applied: list[tuple[_Override, dict[tuple[str | int, ...], Scalar]]] = []
    for text in texts:
        override = _Override(text, types_at)
        root = override.apply(root)
        for earlier, values in applied:
            lost = next((path for path, value in values.items() if not _has(root, path, value)), None)
            if lost is not None:
                other = override.source if len(override.source) <= _SHOWN else f"{override.source[:_SHOWN]}…"
                remedy = "remove one of the two" + ("" if earlier.parts == override.parts else ", or exchange them")
                earlier.stop(f"is undone by {other}, which follows it; {remedy}", lost)
        applied.append((override, dict(_values(root, override.place))))
    return root


def _values(node: Node, place: Place, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Scalar]]:
    """Yield the scalars with a location, with their paths."""
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield from _values(child, place, (*path, key))
    elif isinstance(node.value, list):
        for index, child in enumerate(node.value):
            yield from _values(child, place, (*path, index))
    elif node.place == place:
        yield path, node.value


def _has(root: Node, path: Sequence[str | int], value: Scalar) -> bool:
    """Return whether a scalar is at a path; a component that was written as its name may have fields."""
    node: Node | None = root
    for part in path:
        node = None if node is None else node.child(part)
    if node is not None and isinstance(node.value, dict):
        node = node.child("name")
    return node is not None and node.value == value


class _Override:
    def __init__(self, text: str, types_at: TypesAt | None) -> None:
        self.source = f"--set {text}"
        self.place = Place(self.source)
        self.types_at = types_at
        dotted, equals, self.written = text.partition("=")
        if dotted.endswith(" "):
            self.written = self.written.removeprefix(" ")
        self.parts = dotted.strip().split(".")
        self.value = Node(None, self.place, self.place)
        self.is_text = False
        if not equals:
            self.stop("expected PATH=VALUE, as in model.position=alibi", ())
        if not all(self.parts):
            self.stop(f"{dotted.strip()!r} is not a path; write keys joined by dots, as in model.position", ())
        if len(self.parts) > MAX_DEPTH:
            self.stop(f"the path is more than {MAX_DEPTH} deep", ())

    def stop(self, message: str, path: tuple[str | int, ...]) -> NoReturn:
        raise SpecError([Problem(path, message, self.source)])

    def read(self, root: Node) -> Node:
        """Return the value: literally for a field that is a text, else read as YAML."""
        try:
            refuse_characters(self.written, self.source)
        except SpecError as error:
            # Lines and columns of the generated text are meaningless.
            raise SpecError([Problem((), problem.message, self.source) for problem in error.problems]) from None
        types = () if self.types_at is None else self.types_at(root.plain(), self.path(root))
        result = [each for each in types if each is not type(None)]
        texts, lists = str in result, any(_lists_texts(each) for each in result)
        self.is_text = texts
        stripped = self.written.strip()
        if not (texts or lists):
            return self.parse(self.written, literal_on_error=False)
        if len(result) < len(types) and plain_scalar(stripped) is None:
            return Node(None, self.place, self.place)
        if len(result) > 1 or stripped[:1] in ('"', "'") or (lists and stripped[:1] == "["):
            value = self.parse(self.written, literal_on_error=True)
            if len(result) > 1 or not isinstance(value.value, dict):
                return value
        return Node(self.written, self.place, self.place)

    def path(self, root: Node) -> list[str | int]:
        """Return the path with indices of lists as numbers."""
        path: list[str | int] = []
        node: Node | None = root
        for part in self.parts:
            in_list = (
                node is not None and isinstance(node.value, list) and part.isascii() and part.isdigit() and len(part) <= 6
            )
            path.append(int(part) if in_list else part)
            node = None if node is None else node.child(path[-1])
        return path

    def parse(self, value: str, *, literal_on_error: bool) -> Node:
        """Return the value read as YAML; text that is not YAML is refused, or read literally."""
        # The value becomes the only item of a list inside a mapping, so that it may be of any type.
        try:
            node = parse_yaml(f"value:\n- {value.strip()}\n", self.source).child("value")
        except SpecError as error:
            if literal_on_error:
                return Node(value, self.place, self.place)
            raise SpecError([Problem((), problem.message, self.source) for problem in error.problems]) from None
        if node is None or not isinstance(node.value, list) or len(node.value) != 1:
            if literal_on_error:
                return Node(value, self.place, self.place)
            self.stop("the value is more than one value", ())
        return self.relocated(node.value[0])

    def relocated(self, node: Node) -> Node:
        """Return the node, with the location of the override."""
        if isinstance(node.value, dict):
            return Node({key: self.relocated(child) for key, child in node.value.items()}, self.place, self.place)
        if isinstance(node.value, list):
            return Node([self.relocated(child) for child in node.value], self.place, self.place)
        return Node(node.value, self.place, self.place)

    def apply(self, root: Node) -> Node:
        if self.parts[0] == "extends":
            self.stop("'extends' belongs in a spec file", ())
        self.value = self.read(root)
        return merge_roots(root, self.merged(root, 0))

    def merged(self, node: Node | None, depth: int) -> Node:
        """Return the value below the keys of its path; lists on the path keep their other items."""
        if depth == len(self.parts):
            return self.value
        part, path = self.parts[depth], tuple(self.parts[:depth])
        if node is not None and isinstance(node.value, list):
            return self.in_list(node, node.value, depth)
        if node is not None and isinstance(node.value, (bool, int, float)):
            shown = str(node.value).lower()
            self.stop(f"is {shown}, so {part!r} cannot be set below it", path)
        child = self.merged(None if node is None else node.child(part), depth + 1)
        return Node({part: child}, self.place, self.place)

    def in_list(self, node: Node, items: list[Node], depth: int) -> Node:
        part, path = self.parts[depth], tuple(self.parts[:depth])
        count = f"has {len(items)} item{'' if len(items) == 1 else 's'}"
        if not (part.isascii() and part.isdigit()) or len(part) > 6:
            self.stop(f"is a list, which {count}; {part!r} is not an index", path)
        index = int(part)
        if index >= len(items):
            self.stop(f"{count}, counted from 0; index {index} is out of range", path)
        changed = list(items)
        # The name of a component is one of the registered ones, and another one replaces the component; a title is any text.
        title = self.is_text and self.parts[depth + 1 :] == ["name"] and isinstance(items[index].value, dict)
        merge = merge_roots if title else merge_nodes
        changed[index] = merge(items[index], self.merged(items[index], depth + 1))
        return node.below(changed)


def _lists_texts(annotation: Any) -> bool:
    """Return whether a type is a tuple or list of texts."""
    return get_origin(annotation) in (tuple, list) and all(
        inner is Ellipsis or str in alternatives(inner) for inner in get_args(annotation)
    )
