"""JSON objects with a checksum of their content, so that a damaged file is recognized whatever it still contains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["seal", "unseal"]

_KEY = "sha256"


def seal(data: Mapping[str, Any], *, indent: int | None = None) -> str:
    """Return an object as JSON with its checksum as the last entry.

    Args:
        data: the object, as JSON can represent it; finite numbers only, and no entry `sha256`.
        indent: number of spaces of each level; None for one line.
    """
    return json.dumps({**data, _KEY: _checksum(data)}, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def unseal(text: str) -> dict[str, Any]:
    """Return an object without its checksum. One without a checksum, as earlier versions wrote it, is returned unchecked.

    Raises:
        ValueError: the text is not a JSON object, or has changed since it was written.
    """
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object")
    checksum = data.pop(_KEY, None)
    if checksum is not None and checksum != _checksum(data):
        raise ValueError("it has changed since it was written: the checksum differs")
    return data


def _checksum(data: Mapping[str, Any]) -> str:
    # Of the object as it is read again: tuples are lists then, and all keys are texts.
    content = json.loads(json.dumps(data))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
