"""Saved state of tokenizers: a JSON file with a checksum, and tables of ranks."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from gptkit.core.atomic import reading, write_text
from gptkit.core.errors import TokenizerError

__all__ = ["SavedState", "damaged", "format_ranks", "parse_ranks", "read_bytes", "write_state"]

T = TypeVar("T", bound=str)

STATE_FILE = "gptkit-tokenizer.json"
_FORMAT = 1
_HINT = "Copy the file again from its source, or train the tokenizer again."


def damaged(path: Path, why: str) -> TokenizerError:
    """Return the error for an unusable saved file."""
    return TokenizerError(f"{path}: {why}", hint=_HINT)


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        TokenizerError: the file is missing or unreadable.
        FileError: the file may not be read.
    """
    try:
        with reading(path):
            return path.read_bytes()
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror or error})") from None


def write_state(directory: Path, name: str, state: Mapping[str, Any]) -> None:
    """Write a tokenizer's state to a directory; equal states give identical files."""
    body = {"format": _FORMAT, "tokenizer": name, **state}
    # One entry per line keeps vocabularies readable and diffs small.
    text = json.dumps({**body, "sha256": _checksum(body)}, ensure_ascii=False, indent=0)
    write_text(directory / STATE_FILE, text)


class SavedState:
    """Saved state of a tokenizer, with typed access; every error names the file.

    Args:
        directory: the directory passed to `write_state`.
        name: the component that saved it.

    Raises:
        TokenizerError: the file is missing, damaged, or was saved by another component.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / STATE_FILE
        try:
            body = json.loads(read_bytes(self.path))
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, f"is not valid JSON ({error})") from None
        if not isinstance(body, dict):
            raise damaged(self.path, "is not a JSON object")
        if body.get("format") != _FORMAT:
            raise damaged(self.path, f"has format {body.get('format')!r}, but this version of gptkit reads {_FORMAT}")
        if body.get("tokenizer") != name:
            raise damaged(self.path, f"contains a tokenizer {body.get('tokenizer')!r}, not {name!r}")
        checksum = body.pop("sha256", None)
        if checksum != _checksum(body):
            raise damaged(self.path, "has changed since it was written: the checksum differs")
        self._body = body

    def text(self, key: str) -> str:
        return str(self._get(key, str))

    def optional_text(self, key: str) -> str | None:
        return None if self._body.get(key, 0) is None else self.text(key)

    def flag(self, key: str) -> bool:
        return bool(self._get(key, bool))

    def choice(self, key: str, options: tuple[T, ...]) -> T:
        value = self.text(key)
        for option in options:
            if option == value:
                return option
        raise damaged(self.path, f"{key!r} is {value!r}, not one of {', '.join(options)}")

    def texts(self, key: str) -> list[str]:
        values = self._get(key, list)
        if not all(isinstance(value, str) for value in values):
            raise damaged(self.path, f"{key!r} is not a list of strings")
        return list(values)

    def ids(self, key: str) -> dict[str, int]:
        values = self._get(key, dict)
        if not all(type(value) is int and value >= 0 for value in values.values()):
            raise damaged(self.path, f"{key!r} does not map to ids")
        return dict(values)

    def _get(self, key: str, kind: type) -> Any:
        value = self._body.get(key)
        if type(value) is not kind:
            raise damaged(self.path, f"{key!r} is missing, or is not a {kind.__name__}")
        return value


def format_ranks(ranks: Mapping[bytes, int]) -> bytes:
    """Format ranks in tiktoken's format: one base64 token and its rank per line, in the order of ranks."""
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in sorted(ranks.items(), key=lambda item: item[1]))
    return b"".join(lines)


def parse_ranks(data: bytes, path: Path) -> dict[bytes, int]:
    """Parse ranks in tiktoken's format. (tiktoken's reader caches by path, and so returns outdated ranks after an edit.)

    Raises:
        TokenizerError: a line is malformed, ranks are not distinct, or a byte has no rank.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise damaged(path, f"line {number} is not a base64 token followed by its rank") from None
    if len(set(ranks.values())) != len(ranks) or min(ranks.values(), default=0) < 0:
        raise damaged(path, "contains a duplicate or negative rank")
    missing = sum(bytes((value,)) not in ranks for value in range(256))
    if missing:
        raise damaged(path, f"lacks {missing} of the 256 bytes")
    return ranks


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
