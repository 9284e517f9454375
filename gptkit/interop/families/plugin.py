"""The built-in families, brought through the same door as a plugin's: every one that a module beside this one defines."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import gptkit.interop.families
from gptkit.core.component import Component
from gptkit.core.hooks import hookimpl
from gptkit.kinds.family import FamilySpec


@hookimpl
def gptkit_components() -> list[type[Component]]:
    found: list[type[Component]] = []
    for info in pkgutil.iter_modules(gptkit.interop.families.__path__, "gptkit.interop.families."):
        if info.name == __name__:
            continue
        module = importlib.import_module(info.name)
        found += [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, FamilySpec)
            and value.__module__ == module.__name__
            and "name" in value.__annotations__
            and not inspect.isabstract(value)
        ]
    return found
