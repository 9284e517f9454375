"""Contract of a kind, derived from its class: the methods of a component, and the runtime class."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gptkit.core.component import Component
from gptkit.reflect import prose

__all__ = ["Member", "contract", "members", "own_doc", "runtime_classes"]


@dataclass(frozen=True)
class Member:
    """A method or property of a contract.

    Attributes:
        head: its signature: ``factor(self, step: int, steps: int) -> float``.
        must: whether a component has to define it.
        doc: its docstring.
    """

    head: str
    must: bool
    doc: str


def contract(kind: type[Component]) -> str:
    """Return the contract as Markdown: each method that a component defines or overrides, then the runtime class."""
    parts = [f"In Python: `{kind.__module__}.{kind.__qualname__}`."]
    parts += _methods(kind)
    for runtime in runtime_classes(kind):
        parts += [f"### {runtime.__name__}", prose.prose(own_doc(runtime)), *_methods(runtime)]
    return "\n\n".join(part for part in parts if part)


def members(cls: type[Any]) -> Iterator[Member]:
    """Yield the documented public methods and properties that a class itself defines."""
    for name, member in vars(cls).items():
        function = member.fget if isinstance(member, property) else inspect.unwrap(getattr(member, "__func__", member))
        if (name.startswith("_") and name != "__call__") or not inspect.isfunction(function) or not function.__doc__:
            continue
        if isinstance(member, property):
            head = f"{name}: {_annotation(function)}"
        else:
            head = f"{name}{str(inspect.signature(function)).replace(chr(39), '')}"
        yield Member(head, bool(getattr(member, "__isabstractmethod__", False)), inspect.cleandoc(function.__doc__))


def _methods(cls: type[Any]) -> Iterator[str]:
    for member in members(cls):
        yield f"`{member.head}`{' *(required)*' if member.must else ''}"
        # The body of a Markdown definition is indented below its head.
        yield "\n".join(f":   {line}" if not i else f"    {line}" for i, line in enumerate(_lines(member.doc)))


def _lines(text: str) -> list[str]:
    return prose.prose(text).splitlines() or [""]


def _annotation(function: Any) -> str:
    return str(function.__annotations__.get("return", "")).replace("'", "")


def runtime_classes(kind: type[Component]) -> list[type[Any]]:
    """Return the kind's runtime class, then the classes of its module that its methods return."""
    module = vars(sys.modules[kind.__module__])
    result: dict[str, type[Any]] = {}
    if kind.runtime:
        location, _, name = kind.runtime.partition(":")
        result[name] = getattr(importlib.import_module(location), name)
    for member in vars(kind).values():
        function = inspect.unwrap(getattr(member, "__func__", member))
        if not inspect.isfunction(function):
            continue
        for word in re.findall(r"\w+", _annotation(function)):
            value = module.get(word)
            if isinstance(value, type) and value.__module__ == kind.__module__ and not issubclass(value, Component):
                result[word] = value
    return list(result.values())


def own_doc(cls: type[Any]) -> str:
    """Return the class's own docstring, not an inherited one."""
    return cls.__dict__.get("__doc__") or ""
