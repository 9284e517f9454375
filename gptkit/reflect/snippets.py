"""Formatting of values as in a spec file: short YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from gptkit.core.component import Component
from gptkit.files import dump_yaml

__all__ = ["block", "flow", "plain"]

_BARE = re.compile(r"[A-Za-z_./~][\w./+-]*( [\w./+-]+)*")
_TAKEN = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~", ".inf", ".nan", "."}


def plain(value: Any) -> Any:
    """Convert a value to plain data; a component with only default fields becomes its name."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        kept = {
            name: plain(getattr(value, name))
            for name in fields
            if name == "name" or getattr(value, name) != fields[name].get_default(call_default_factory=True)
        }
        # A default may be a name or mapping, whereas the value is the component validated from it.
        kept = {
            name: item
            for name, item in kept.items()
            if name == "name" or item != plain(fields[name].get_default(call_default_factory=True))
        }
        return kept["name"] if isinstance(value, Component) and set(kept) == {"name"} else kept
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(plain, value), key=str)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def flow(value: Any) -> str:
    """Format plain data on one line: ``{name: gated, activation: silu}``."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, float):
        return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].replace('+', '')}{m[2]}", repr(value))
    if isinstance(value, (str, PurePath)):
        text = str(value)
        return text if _BARE.fullmatch(text) and text.lower() not in _TAKEN else json.dumps(text, ensure_ascii=False)
    return json.dumps(value)


def block(path: Sequence[str], value: Any) -> str:
    """Format plain data as YAML under the keys of `path`."""
    data: Any = value
    for key in reversed(path):
        data = {key: data}
    return dump_yaml(data).rstrip("\n")
