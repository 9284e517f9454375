"""The built-in families and formats, registered through the same hook as a plugin's.

Every family that a module of `gptkit.interop.families` defines is registered, and every format that a module `format` of a
package in `gptkit.interop.formats` defines: a new one is a new file.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import gptkit.interop.families
import gptkit.interop.formats
from gptkit.core.component import Component
from gptkit.core.hooks import hookimpl


@hookimpl
def gptkit_components() -> list[type[Component]]:
    found: list[type[Component]] = []
    for name in _modules():
        module = importlib.import_module(name)
        found += [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, Component)
            and value.__module__ == module.__name__
            and "name" in value.__annotations__
            and not inspect.isabstract(value)
        ]
    return found


def _modules() -> Iterator[str]:
    for info in pkgutil.iter_modules(gptkit.interop.families.__path__, "gptkit.interop.families."):
        yield info.name
    # The other modules of a format import torch, and are imported when a file is read or written.
    for info in pkgutil.iter_modules(gptkit.interop.formats.__path__, "gptkit.interop.formats."):
        yield f"{info.name}.format"
