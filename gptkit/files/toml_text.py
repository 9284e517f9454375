"""Parsing of TOML: tomllib validates and reads the text; a scan of the valid text finds the locations."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from gptkit.files.building import MAX_DEPTH, Builder, Lines
from gptkit.files.nodes import Node, Place

__all__ = ["parse_toml"]

Path = tuple[str | int, ...]
_PLACE = re.compile(r"\(at (?:line (\d+), column (\d+)|end of document)\)$")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'",
    re.DOTALL,
)
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING_OR_COMMENT = re.compile(f"{_STRING.pattern}|#[^\n]*", re.DOTALL)
_LONG_KEY = re.compile(rf"(?<![\w-])(?:[\w-]+[ \t]*\.[ \t]*){{{MAX_DEPTH}}}")
_OTHER = re.compile(r"[^,\]}#\r\n]+")


def parse_toml(text: str, source: str) -> Node:
    """Parse a TOML text.

    Raises:
        SpecError: lists every error found.
    """
    builder = Builder(source)
    text = text.replace("\r\n", "\n")
    # tomllib takes quadratic time for the parts of a dotted key.
    if _LONG_KEY.search(_STRING_OR_COMMENT.sub("s", text)):
        builder.stop(f"nested more than {MAX_DEPTH} deep", Place(source), ())
    try:
        data = tomllib.loads(text)
        places = _Places(text, source)
    except RecursionError:
        builder.stop("nested too deep", Place(source), ())
    except ValueError as error:  # TOMLDecodeError, and the error of int() for thousands of digits
        result = _PLACE.search(str(error))
        message = str(error)[: result.start()].strip() if result else "a number is too long"
        if message.startswith("Invalid value"):
            message += "; texts need quotes"
        if result and result.group(1):
            place = Place(source, int(result.group(1)), int(result.group(2)))
        else:
            place = Lines(text, source).place(len(text)) if result else Place(source)
        builder.stop(f"not valid TOML: {message[:1].lower()}{message[1:]}", place, ())
    if not data:
        return builder.finish()
    _feed(builder, data, (), places)
    return builder.finish()


def _feed(builder: Builder, data: Any, path: Path, places: _Places) -> None:
    place = places.values.get(path) or places.keys.get(path) or Place(builder.source, 1, 1)
    if isinstance(data, Mapping):
        builder.start({}, place)
        for key, value in data.items():
            builder.key(key, places.keys.get((*path, key), place))
            _feed(builder, value, (*path, key), places)
        builder.end()
    elif isinstance(data, list):
        builder.start([], place)
        for index, value in enumerate(data):
            _feed(builder, value, (*path, index), places)
        builder.end()
    elif data is None or isinstance(data, (str, int, float)):
        builder.scalar(data, place)
    else:
        builder.note("dates and times are not supported in a spec; put it in quotes", place)
        builder.scalar(str(data), place)


class _Places:
    """Locations of the keys and values of a valid TOML text."""

    def __init__(self, text: str, source: str) -> None:
        self.keys: dict[Path, Place] = {}
        self.values: dict[Path, Place] = {}
        self._text = text
        self._place = Lines(text, source).place
        self._offset = 0
        self._lists: dict[Path, int] = {}
        table: Path = ()
        while self._blank():
            if self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)

    def _peek(self) -> str:
        return self._text[self._offset : self._offset + 1]

    def _skip(self, pattern: re.Pattern[str]) -> str:
        result = pattern.match(self._text, self._offset)
        # The text is valid, so there is a match; the offset advances in any case, so that the scan ends.
        self._offset = result.end() if result else self._offset + 1
        return result.group() if result else ""

    def _blank(self) -> bool:
        self._skip(_BLANK)
        return self._offset < len(self._text)

    def _header(self) -> Path:
        is_list = self._text.startswith("[[", self._offset)
        place = self._place(self._offset)
        self._offset += 1 + is_list
        path = self._key(())
        self._offset += 1 + is_list
        if is_list:
            self._lists[path] = self._lists.get(path, -1) + 1
            path = (*path, self._lists[path])
        self.values.setdefault(path, place)
        return path

    def _pair(self, table: Path) -> None:
        path = self._key(table)
        self._offset += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _key(self, path: Path) -> Path:
        """Return the path of a dotted key below a table, and advance past it."""
        while True:
            self._skip(_SPACE)
            place = self._place(self._offset)
            if self._peek() in ('"', "'"):
                raw = self._skip(_STRING)
                name = next(iter(tomllib.loads(f"{raw} = 0")))
            else:
                name = self._skip(_BARE)
            path = (*path, name)
            self.keys.setdefault(path, place)
            self._skip(_SPACE)
            if self._peek() != ".":
                return path
            self._offset += 1
            # `[a.b]` after `[[a]]` refers to the last table of the list.
            if path in self._lists:
                path = (*path, self._lists[path])

    def _value(self, path: Path) -> None:
        self.values.setdefault(path, self._place(self._offset))
        char = self._peek()
        if char == "[":
            self._offset += 1
            index = 0
            while self._blank() and self._peek() != "]":
                self._value((*path, index))
                index += 1
                self._comma()
            self._offset += 1
        elif char == "{":
            self._offset += 1
            while self._blank() and self._peek() != "}":
                self._pair(path)
                self._comma()
            self._offset += 1
        elif char in ('"', "'"):
            self._skip(_STRING)
        else:
            self._skip(_OTHER)

    def _comma(self) -> None:
        self._blank()
        if self._peek() == ",":
            self._offset += 1
