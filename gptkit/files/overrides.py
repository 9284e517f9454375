"""``--set model.position=alibi``: one value of a spec, changed from the command line."""

from __future__ import annotations

from typing import NoReturn

from gptkit.core.errors import Problem, SpecError
from gptkit.files.building import MAX_DEPTH, refuse_characters
from gptkit.files.nodes import Node, Place, merge_nodes, merge_roots
from gptkit.files.yaml_text import parse_yaml

__all__ = ["apply_override"]


def apply_override(root: Node, text: str) -> Node:
    """The tree with one ``dotted.path=value`` laid over it, by the rule of `gptkit.files.merge`.

    The value is YAML: ``model.attention={name: simple}``. Whole numbers index lists: ``model.layers.0.position=none``.

    Raises:
        SpecError: the override cannot be read, or its path leads nowhere.
    """
    return _Override(text).apply(root)


class _Override:
    def __init__(self, text: str) -> None:
        self.source = f"--set {text}"
        self.place = Place(self.source)
        dotted, equals, value = text.partition("=")
        self.parts = dotted.strip().split(".")
        if not equals:
            self.stop("expected PATH=VALUE, as in model.position=alibi", ())
        if not all(self.parts):
            self.stop(f"{dotted.strip()!r} is no path; write keys joined by dots, as in model.position", ())
        if len(self.parts) > MAX_DEPTH:
            self.stop(f"the path is more than {MAX_DEPTH} deep", ())
        self.value = self.parse(value)

    def stop(self, message: str, path: tuple[str | int, ...]) -> NoReturn:
        raise SpecError([Problem(path, message, self.source)])

    def parse(self, value: str) -> Node:
        # The value becomes the only item of a list inside a mapping, so that it may be of any type.
        try:
            refuse_characters(value, self.source)
            node = parse_yaml(f"value:\n- {value.strip()}\n", self.source).child("value")
        except SpecError as error:
            # Lines and columns would count in text that nobody wrote.
            raise SpecError([Problem((), problem.message, self.source) for problem in error.problems]) from None
        if node is None or not isinstance(node.value, list) or len(node.value) != 1:
            self.stop("the value is more than one value", ())
        return self.here(node.value[0])

    def here(self, node: Node) -> Node:
        """The node, standing in the override."""
        if isinstance(node.value, dict):
            return Node({key: self.here(child) for key, child in node.value.items()}, self.place, self.place)
        if isinstance(node.value, list):
            return Node([self.here(child) for child in node.value], self.place, self.place)
        return Node(node.value, self.place, self.place)

    def apply(self, root: Node) -> Node:
        if self.parts[0] == "extends":
            self.stop("'extends' belongs in a spec file", ())
        return merge_roots(root, self.laid(root, 0))

    def laid(self, node: Node | None, depth: int) -> Node:
        """The value wrapped in the keys that lead to it, with the lists on the way as they are."""
        if depth == len(self.parts):
            return self.value
        part, path = self.parts[depth], tuple(self.parts[:depth])
        if node is not None and isinstance(node.value, list):
            return self.in_list(node, node.value, depth)
        if node is not None and isinstance(node.value, (bool, int, float)):
            shown = str(node.value).lower()
            self.stop(f"is {shown}, which has no {part!r} below it", path)
        child = self.laid(None if node is None else node.child(part), depth + 1)
        return Node({part: child}, self.place, self.place)

    def in_list(self, node: Node, items: list[Node], depth: int) -> Node:
        part, path = self.parts[depth], tuple(self.parts[:depth])
        count = f"has {len(items)} item{'' if len(items) == 1 else 's'}"
        if not (part.isascii() and part.isdigit()) or len(part) > 6:
            self.stop(f"is a list, which {count}; {part!r} is no index of it", path)
        index = int(part)
        if index >= len(items):
            self.stop(f"{count}, counted from 0; there is no {index}", path)
        changed = list(items)
        changed[index] = merge_nodes(items[index], self.laid(items[index], depth + 1))
        return node.below(changed)
