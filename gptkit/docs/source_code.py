"""The source of a component, to open on its page."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

from gptkit.core.component import Component
from gptkit.reflect import prose

__all__ = ["sources"]

_MOST = 400
"""Lines of a module that is shown as a whole; of a longer one, only the class is."""


def sources(cls: type[Component]) -> str:
    """Return the source of a component's spec, and of its module in PyTorch if it has a file of its own, as Markdown."""
    return "\n\n".join(_folded(title, text) for title, text in _files(cls))


def _files(cls: type[Component]) -> Iterator[tuple[str, str]]:
    module = inspect.getmodule(cls)
    if module is None:
        return
    try:
        whole = inspect.getsource(module)
        text = whole if whole.count("\n") <= _MOST else inspect.getsource(cls)
    except (OSError, TypeError):
        return
    yield _path(cls.__module__), text
    package, _, name = cls.__module__.rpartition(".")
    runtime = _found(f"{package}.modules.{name}")
    if runtime is not None and runtime.origin is not None:
        text = Path(runtime.origin).read_text(encoding="utf-8", errors="replace")
        if text.count("\n") <= _MOST:
            yield _path(runtime.name), text


def _found(module: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None


def _path(module: str) -> str:
    return module.replace(".", "/") + ".py"


def _folded(title: str, text: str) -> str:
    code = prose.code(text.rstrip(), "python")
    inner = "\n".join(f"    {line}" if line else "" for line in code.splitlines())
    return f'??? abstract "{title}"\n\n{inner}'
