"""Plain data from the Python values of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gptkit.core.errors import Problem, SpecError

__all__ = ["plain"]

_DEEPEST = 100
"""More levels than a spec has: what nests deeper contains itself."""


def plain(value: Any, path: tuple[str | int, ...] = ()) -> Any:
    """Return texts, numbers, lists and mappings for a value of a spec.

    Specs become their data, paths texts, and numbers and arrays of numpy and torch those of Python.

    Args:
        value: the value.
        path: its keys and indices in the spec.

    Raises:
        SpecError: a part of it is not data.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    if len(path) > _DEEPEST:
        raise SpecError([Problem(path[:3], "it contains itself; write a value that ends")])
    if isinstance(value, Mapping):
        return {key: plain(item, (*path, key)) for key, item in _named(value, path).items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, (int, float)):
        return value
    if callable(getattr(value, "tolist", None)):
        return value.tolist()
    what = f"a value of the type {type(value).__name__!r} is not data"
    raise SpecError([Problem(path, f"{what}; write a text, a number, a list or a mapping of keys")])


def _named(value: Mapping[Any, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    wrong = next((key for key in value if not isinstance(key, (str, int, float, type(None)))), None)
    if wrong is not None:
        raise SpecError([Problem(path, f"the key {wrong!r} is of the type {type(wrong).__name__!r}; write a text")])
    return {str(key): item for key, item in value.items()}
