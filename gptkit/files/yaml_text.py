"""Parsing of YAML 1.2 from ruamel.yaml's event stream.

Events are used instead of ruamel's constructors, so that tags never construct objects, and limits apply while reading. Plain
scalars follow the core schema: ``1e-5`` is a number, ``no`` and dates are texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from gptkit.core.spec import shortened
from gptkit.core.yaml import plain_scalar
from gptkit.files.building import Builder, Built
from gptkit.files.nodes import Node, Place

__all__ = ["parse_yaml"]

MAX_ALIASES = 100
MAX_LINE = 1 << 16


def parse_yaml(text: str, source: str) -> Node:
    """Parse a YAML text.

    Raises:
        SpecError: lists every error found.
    """
    reader = _Reader(source)
    for number, line in enumerate(text.split("\n"), 1):
        # The scanner takes quadratic time for some long lines.
        if len(line) > MAX_LINE:
            reader.builder.stop(f"a line of more than {MAX_LINE} characters", Place(source, number, 1), ())
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            reader.take(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1, mark.column + 1) if mark else Place(source)
        what = _in_plain_words(error, text.split("\n"))
        reader.builder.stop(f"not valid YAML: {what}", place, ())
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, NotImplementedError):
        # The scanner raises these for some malformed directives and escapes.
        reader.builder.stop("not valid YAML", Place(source, reader.line), ())
    return reader.builder.finish()


_PLAIN = (
    (r"'\\t'|tab character", "a tab; indent with spaces"),
    (r"mapping values are not allowed", "a ': ' inside a value, or a line that is indented too far; quote such a value"),
    (r"expected <block end>|did not find expected", "its indentation does not match the lines above"),
    (r"could not find expected ':'", "a key without ': ' after it"),
    (r"found unexpected end of stream", "a quote or bracket that is not closed"),
)


def _in_plain_words(error: MarkedYAMLError, lines: Sequence[str]) -> str:
    """Return a message with the line; the parser's message if the error is not one of the usual ones."""
    mark = error.problem_mark or error.context_mark
    problem = str(error.problem or "")
    plain = next((words for pattern, words in _PLAIN if re.search(pattern, problem)), None)
    if plain is None or mark is None or mark.line >= len(lines):
        return ", ".join(str(part).strip() for part in (error.context, error.problem) if part)
    return f"{plain}, in the line {shortened(lines[mark.line].strip())!r}"


class _Reader:
    """Reader that passes events to the builder, and stores the values of anchors."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.builder = Builder(source)
        self.line = 1
        self._documents = 0
        self._aliases = 0
        self._anchors: dict[str, Built | None] = {}
        self._named: list[str | None] = []

    def take(self, event: Any) -> None:
        builder = self.builder
        place = self._place(event)
        if getattr(event, "tag", None) is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            builder.stop(f"tags are refused: remove {shortened(tag)}", place)
        if isinstance(event, DocumentStartEvent):
            self._start_document(event, place)
        elif isinstance(event, ScalarEvent):
            self._scalar(event, place)
        elif isinstance(event, (MappingStartEvent, SequenceStartEvent)):
            if builder.wants_key:
                builder.stop("a key must be a text, not a mapping or list", place)
            builder.start({} if isinstance(event, MappingStartEvent) else [], place)
            self._named.append(event.anchor)
            if event.anchor is not None:
                self._anchors[event.anchor] = None
        elif isinstance(event, (MappingEndEvent, SequenceEndEvent)):
            self._store_anchor(self._named.pop(), builder.end())
        elif isinstance(event, AliasEvent):
            self._alias(event.anchor, place)

    def _start_document(self, event: DocumentStartEvent, place: Place) -> None:
        self._documents += 1
        if self._documents > 1:
            self.builder.stop("a spec is one document; remove what follows '---'", place, ())
        if event.version is not None and tuple(event.version) != (1, 2):
            self.builder.stop("specs are YAML 1.2; remove the %YAML line", Place(self.source, 1, 1), ())

    def _scalar(self, event: ScalarEvent, place: Place) -> None:
        builder = self.builder
        value = event.value if event.style else plain_scalar(event.value)
        if builder.wants_key:
            if value == "<<" and not event.style:
                builder.stop("merge keys are not YAML 1.2; write the fields out, or use 'extends'", place)
            builder.key(value, place)
            # An anchor on a key has no effect.
            return
        if event.value == "" and not event.style:
            place = builder.key_place or place
        self._store_anchor(event.anchor, builder.scalar(value, place))

    def _alias(self, name: str, place: Place) -> None:
        self._aliases += 1
        if self.builder.wants_key:
            self.builder.stop("a key must be a text, not an alias", place)
        if self._aliases > MAX_ALIASES:
            self.builder.stop(f"more than {MAX_ALIASES} aliases", place)
        if name not in self._anchors:
            self.builder.stop(f"alias *{shortened(name)} has no anchor before it", place)
        built = self._anchors[name]
        if built is None:
            self.builder.stop(f"alias *{shortened(name)} is inside the value that it refers to", place)
        self.builder.add(built, place)

    def _store_anchor(self, anchor: str | None, built: Built) -> None:
        if anchor is not None:
            self._anchors[anchor] = built

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        self.line = mark.line + 1
        return Place(self.source, mark.line + 1, mark.column + 1)
