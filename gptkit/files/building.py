"""Shared code of the three formats: a tree built from events, within bounds, with all errors."""

from __future__ import annotations

import bisect
import math
import re
from dataclasses import dataclass, field
from typing import NoReturn

from gptkit.core.errors import Problem, SpecError
from gptkit.files.nodes import Node, Place, Scalar

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_NODES", "Builder", "Built", "Lines", "refuse_characters"]

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 20_000
MAX_KEY = 200
MAX_PROBLEMS = 50
_MAX_INT = 1 << 63
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Path = tuple[str | int, ...]


@dataclass(slots=True)
class _Frame:
    """Mapping or list that is not complete."""

    value: dict[str, Node] | list[Node]
    place: Place
    name: str | None = None
    """The key whose value comes next."""
    key: Place | None = None
    skip: bool = False
    """The next value belongs to a key that was refused."""
    size: int = 1
    height: int = 1


@dataclass(slots=True)
class Built:
    """Complete node with its number of nodes and depth, which are counted again for each alias."""

    node: Node
    size: int = 1
    height: int = 0


@dataclass
class Builder:
    """Builder of nodes from events in the order of the text.

    Errors that leave the rest readable are kept in `problems` and raised together by `finish`; `stop` raises at once.
    """

    source: str
    problems: list[Problem] = field(default_factory=list)
    root: Built | None = None
    _open: list[_Frame] = field(default_factory=list)

    @property
    def wants_key(self) -> bool:
        """Whether the next event must be a key of a mapping, or its end."""
        frame = self._open[-1] if self._open else None
        return frame is not None and isinstance(frame.value, dict) and frame.key is None

    @property
    def key_place(self) -> Place | None:
        """Location of the key of the next value."""
        return self._open[-1].key if self._open else None

    @property
    def path(self) -> Path:
        """The path of the value that comes next."""
        parts: list[str | int] = []
        for frame in self._open:
            if isinstance(frame.value, list):
                parts.append(len(frame.value))
            elif frame.name is not None:
                parts.append(frame.name)
        return tuple(parts)

    def note(self, message: str, place: Place, path: Path | None = None) -> None:
        """Record an error, and continue reading."""
        self.problems.append(Problem(self.path if path is None else path, message, *place))
        if len(self.problems) >= MAX_PROBLEMS:
            self.stop(f"and more: only the first {MAX_PROBLEMS} errors are shown", place, ())

    def stop(self, message: str, place: Place, path: Path | None = None) -> NoReturn:
        """Raise an error after which nothing can be read, with those recorded so far."""
        self.problems.append(Problem(self.path if path is None else path, message, *place))
        raise SpecError(self.problems)

    def start(self, value: dict[str, Node] | list[Node], place: Place) -> None:
        """Open a mapping or a list."""
        if len(self._open) >= MAX_DEPTH:
            self.stop(f"nested more than {MAX_DEPTH} deep", place, ())
        self._open.append(_Frame(value, place))

    def key(self, key: object, place: Place) -> None:
        """Add the key of the next value."""
        frame = self._open[-1]
        assert isinstance(frame.value, dict)
        frame.key, frame.name, frame.skip = place, None, False
        if not isinstance(key, str):
            shown = {True: "true", False: "false"}.get(key, key) if isinstance(key, bool) else "null" if key is None else key
            self.note(f"a key must be a text, got {shown}; put it in quotes", place)
            frame.skip = True
        elif len(key) > MAX_KEY:
            self.note(f"a key of more than {MAX_KEY} characters", place)
            frame.skip = True
        elif not self._text(key, place, "a key"):
            frame.skip = True
        elif key in frame.value:
            first = frame.value[key].key
            where = f"; first at line {first.line}" if first is not None and first.line is not None else ""
            self.note(f"given twice{where}; remove one of the two", place, (*self.path, key))
            frame.skip = True
        else:
            frame.name = key

    def scalar(self, value: Scalar, place: Place) -> Built:
        """Add a text, number, truth value or null."""
        if isinstance(value, str):
            self._text(value, place, "a text")
        elif isinstance(value, bool) or value is None:
            pass
        elif isinstance(value, int):
            if abs(value) >= _MAX_INT:
                self.note("a whole number this large cannot be used; the largest is 2**63 - 1", place)
                value = 0
        elif not math.isfinite(value):
            self.note("not a finite number", place)
            value = 0.0
        return self.add(Built(Node(value, place)))

    def add(self, built: Built, place: Place | None = None) -> Built:
        """Add a complete value to its mapping or list; `place` is the location of an alias."""
        if not self._open:
            self.root = built
            return built
        frame = self._open[-1]
        place = place or built.node.place
        frame.size += built.size
        frame.height = max(frame.height, built.height + 1)
        if frame.size + sum(outer.size for outer in self._open[:-1]) > MAX_NODES:
            self.stop(f"more than {MAX_NODES} values, aliases written out", place, ())
        if len(self._open) + built.height > MAX_DEPTH:
            self.stop(f"nested more than {MAX_DEPTH} deep, aliases written out", place, ())
        if isinstance(frame.value, list):
            frame.value.append(built.node)
        else:
            if not frame.skip:
                assert frame.name is not None
                frame.value[frame.name] = Node(built.node.value, built.node.place, frame.key)
            frame.name = frame.key = None
        return built

    def end(self) -> Built:
        """Close the innermost mapping or list."""
        frame = self._open.pop()
        return self.add(Built(Node(frame.value, frame.place), frame.size, frame.height))

    def finish(self) -> Node:
        """Return the tree, whose root must be a mapping."""
        if self.root is None or self.root.node.value is None:
            self.stop("the file is empty; a spec needs at least a 'model'", Place(self.source, 1, 1), ())
        if not isinstance(self.root.node.value, dict):
            what = "a list" if isinstance(self.root.node.value, list) else "a single value"
            self.note(f"a spec is a mapping of keys such as 'model' and 'training', not {what}", self.root.node.place, ())
        if self.problems:
            raise SpecError(self.problems)
        return self.root.node

    def _text(self, text: str, place: Place, what: str) -> bool:
        bad = next((char for char in text if char == "\0" or "\ud800" <= char <= "\udfff"), None)
        if bad is not None:
            self.note(f"{what} cannot contain the character U+{ord(bad):04X}", place)
        return bad is None


class Lines:
    """Conversion of offsets in a text to locations."""

    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, offset: int) -> Place:
        line = bisect.bisect_right(self._starts, offset)
        return Place(self._source, line, offset - self._starts[line - 1] + 1)


def refuse_characters(text: str, source: str) -> None:
    """Refuse NUL bytes and other control characters."""
    result = _FORBIDDEN.search(text)
    if result:
        message = f"the character U+{ord(result.group()):04X} is not allowed in a spec file; check that it is a text file"
        raise SpecError([Problem((), message, *Lines(text, source).place(result.start()))])
