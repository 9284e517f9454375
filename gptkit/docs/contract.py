"""What a kind asks of its components, from the kind's own class: the methods to write and the runtime part's class."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

from gptkit.docs import prose
from gptkit.spec import Component

__all__ = ["contract"]


def contract(kind: type[Component]) -> str:
    """Markdown: each method that a component writes or may write, then the class of what `build` returns."""
    parts = [f"In Python: `{kind.__module__}.{kind.__qualname__}`."]
    parts += _methods(kind)
    for runtime in _runtime_classes(kind):
        parts += [f"### {runtime.__name__}", prose.prose(_own_doc(runtime)), *_methods(runtime)]
    return "\n\n".join(part for part in parts if part)


def _methods(cls: type[Any]) -> Iterator[str]:
    for name, member in vars(cls).items():
        function = member.fget if isinstance(member, property) else inspect.unwrap(getattr(member, "__func__", member))
        if (name.startswith("_") and name != "__call__") or not inspect.isfunction(function) or not function.__doc__:
            continue
        must = " *(to be written)*" if getattr(member, "__isabstractmethod__", False) else ""
        if isinstance(member, property):
            head = f"{name}: {_annotation(function)}"
        else:
            head = f"{name}{str(inspect.signature(function)).replace(chr(39), '')}"
        yield f"`{head}`{must}"
        # A definition's body: indented under its head.
        yield "\n".join(f":   {line}" if not i else f"    {line}" for i, line in enumerate(_lines(function.__doc__)))


def _lines(text: str) -> list[str]:
    return prose.prose(text).splitlines() or [""]


def _annotation(function: Any) -> str:
    return str(function.__annotations__.get("return", "")).replace("'", "")


def _runtime_classes(kind: type[Component]) -> list[type[Any]]:
    """Classes of the kind's own module that its methods return, each once."""
    module = vars(sys.modules[kind.__module__])
    found: dict[str, type[Any]] = {}
    for member in vars(kind).values():
        function = inspect.unwrap(getattr(member, "__func__", member))
        if not inspect.isfunction(function):
            continue
        for word in re.findall(r"\w+", _annotation(function)):
            value = module.get(word)
            if isinstance(value, type) and value.__module__ == kind.__module__ and not issubclass(value, Component):
                found[word] = value
    return list(found.values())


def _own_doc(cls: type[Any]) -> str:
    return cls.__dict__.get("__doc__") or ""
