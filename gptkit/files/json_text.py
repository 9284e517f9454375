"""Parsing of JSON by RFC 8259, since the standard library's parser records no locations."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NoReturn

from gptkit.core.spec import shortened
from gptkit.files.building import Builder, Lines
from gptkit.files.nodes import Node, Scalar

__all__ = ["parse_json"]

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z_]+")
_STRINGS = json.JSONDecoder(strict=True)
_OF_PYTHON = {"True": "true", "False": "false", "None": "null"}
_CONSTANTS: dict[str, Scalar] = {"true": True, "false": False, "null": None}


def parse_json(text: str, source: str) -> Node:
    """Parse a JSON text.

    Raises:
        SpecError: lists every error found.
    """
    reader = _Reader(text, source)
    reader.skip()
    if not reader.at_end:
        reader.value()
        reader.skip()
        if not reader.at_end:
            reader.stop("nothing may follow the closing bracket")
    return reader.builder.finish()


class _Reader:
    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.offset = 0
        self.builder = Builder(source)
        self.place = Lines(text, source).place

    @property
    def at_end(self) -> bool:
        return self.offset >= len(self.text)

    def skip(self) -> None:
        space = _SPACE.match(self.text, self.offset)
        assert space is not None
        self.offset = space.end()

    def peek(self) -> str:
        return self.text[self.offset : self.offset + 1]

    def stop(self, message: str) -> NoReturn:
        if self.text.startswith(("//", "/*", "#"), self.offset):
            message = "JSON has no comments; remove it, or write the spec as YAML"
        self.builder.stop(f"not valid JSON: {message}", self.place(self.offset), ())

    def expect(self, char: str, what: str) -> None:
        self.skip()
        if self.peek() != char:
            self.stop(f"expected {what}")
        self.offset += 1

    def value(self) -> None:
        place, char = self.place(self.offset), self.peek()
        if char == "{":
            self.builder.start({}, place)
            self.members()
        elif char == "[":
            self.builder.start([], place)
            self.items()
        elif char == '"':
            self.builder.scalar(self.string(), place)
        else:
            self.builder.scalar(self.number_or_constant(), place)

    def members(self) -> None:
        self.separated("}", self.member)

    def member(self) -> None:
        place = self.place(self.offset)
        if self.peek() != '"':
            self.stop("expected a key in double quotes")
        self.builder.key(self.string(), place)
        self.expect(":", "':' after the key")
        self.skip()
        self.value()

    def items(self) -> None:
        self.separated("]", self.value)

    def separated(self, end: str, read: Callable[[], None]) -> None:
        """Read the elements of a mapping or list, separated by commas, up to the bracket `end`."""
        self.offset += 1
        self.skip()
        if self.peek() != end:
            while True:
                self.skip()
                read()
                self.skip()
                if self.peek() != ",":
                    break
                comma = self.offset
                self.offset += 1
                self.skip()
                if self.peek() == end:
                    self.offset = comma
                    self.stop(f"a comma before '{end}'; remove it")
        self.expect(end, f"',' or '{end}'")
        self.builder.end()

    def string(self) -> str:
        try:
            text, self.offset = _STRINGS.raw_decode(self.text, self.offset)
        except json.JSONDecodeError as error:
            self.offset = error.pos
            self.stop(error.msg[:1].lower() + error.msg[1:])
        return str(text)

    def number_or_constant(self) -> Scalar:
        number = _NUMBER.match(self.text, self.offset)
        if number:
            self.offset = number.end()
            whole = number.group(2) is None and number.group(3) is None
            return int(number.group()) if whole and len(number.group()) < 400 else float(number.group())
        word = _WORD.match(self.text, self.offset)
        if word is None:
            self.stop("expected a value")
        if word.group() in _OF_PYTHON:
            self.stop(f"{word.group()!r} is not a JSON value; write {_OF_PYTHON[word.group()]}")
        if word.group() not in _CONSTANTS:
            self.stop(f"{shortened(word.group())!r} is not a JSON value; strings need double quotes")
        self.offset = word.end()
        return _CONSTANTS[word.group()]
