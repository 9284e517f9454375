"""Plain data as readable YAML, which `gptkit.files.read` loads back equal."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["dump_yaml", "one_line_yaml", "plain_scalar"]

WIDTH = 100
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+*-]*( [A-Za-z0-9_./+*(-][A-Za-z0-9_./+*()-]*)*")
# Strings in YAML 1.2, but booleans in YAML 1.1.
_OLD_BOOLEANS = frozenset({"yes", "no", "on", "off"})
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CONSTANTS: dict[str, str | int | float | bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def dump_yaml(data: Mapping[str, Any]) -> str:
    """Return readable YAML: blocks, and short component mappings and lists of scalars on one line.

    Args:
        data: mappings with text keys, lists, tuples, texts, finite numbers, truth values and None, as from
            ``spec.model_dump(mode="json")``.

    Raises:
        TypeError: the data contains another type.
        ValueError: a number is not finite.
    """
    if not data:
        return "{}\n"
    return "".join(f"{line}\n" for line in _mapping(data, 0))


def one_line_yaml(data: Any) -> str:
    """Return the data in YAML's flow style, as in ``{name: rms, eps: 1e-06}``."""
    return _flow(data)


def plain_scalar(text: str) -> str | int | float | bool | None:
    """Return the value of an unquoted scalar in YAML 1.2's core schema; numbers that are too large become infinite."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return int(text) if len(text) < 400 else float("inf")
    if _BASED.fullmatch(text):
        return int(text, 0) if len(text) < 400 else float("inf")
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float("nan")
    return text


def _mapping(data: Mapping[str, Any], indent: int) -> Iterator[str]:
    for key, value in data.items():
        if not isinstance(key, str):
            raise TypeError(f"keys of a spec must be strings, not {key!r}")
        yield from _item(f"{' ' * indent}{_text(key)}:", value, indent)


def _item(head: str, value: Any, indent: int) -> Iterator[str]:
    """A key, or a list's dash, with its value: on the same line if that reads well, else in a block below."""
    if not isinstance(value, (Mapping, list, tuple)):
        yield f"{head} {_scalar(value)}"
        return
    inline = _flow(value) if _reads_well(value) else None
    if inline is not None and (not value or len(head) + 1 + len(inline) <= WIDTH):
        yield f"{head} {inline}"
    elif head.endswith(":"):
        yield head
        yield from _block(value, indent + 2)
    else:
        # The first line of a list item may follow its dash.
        lines = _block(value, indent + 2)
        yield f"{head} {next(lines).lstrip(' ')}"
        yield from lines


def _block(value: Any, indent: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from _mapping(value, indent)
    else:
        for item in value:
            yield from _item(f"{' ' * indent}-", item, indent)


def _reads_well(value: Any) -> bool:
    """Return whether a collection is written on one line: empty ones, components, and lists of scalars."""
    if not value:
        return True
    if isinstance(value, Mapping):
        nested = [item for item in value.values() if isinstance(item, Mapping) and item]
        return "name" in value and len(nested) <= 2 and all(_reads_well(item) for item in nested)
    return not any(isinstance(item, (Mapping, list, tuple)) for item in value)


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("keys of a spec must be strings")
        return "{" + ", ".join(f"{_text(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a spec cannot contain {value}")
        return repr(float(value))
    if isinstance(value, str):
        return _text(str(value))
    raise TypeError(f"a spec cannot contain a value of type {type(value).__name__}")


def _text(text: str) -> str:
    plain = _PLAIN.fullmatch(text) and isinstance(plain_scalar(text), str) and text.lower() not in _OLD_BOOLEANS
    return text if plain else '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable() and char != "\ufeff":
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
