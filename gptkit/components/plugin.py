"""Entry point of the built-in components.

Every module of ``gptkit/components/<kind>/`` is imported, and every concrete component that it defines is registered: adding
a file is all it takes. Runtime modules in ``gptkit/components/<kind>/modules/`` are imported only when a component is built.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import gptkit.components
from gptkit.core.component import Component
from gptkit.core.hooks import hookimpl


@hookimpl
def gptkit_components() -> list[type[Component]]:
    found: list[type[Component]] = []
    for info in pkgutil.walk_packages(gptkit.components.__path__, "gptkit.components."):
        if info.ispkg or info.name == __name__ or ".modules." in info.name:
            continue
        module = importlib.import_module(info.name)
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
