"""Attribution of unexpected exceptions to plugins."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from traceback import walk_tb
from types import FrameType
from typing import Any

__all__ = ["failing_plugin", "involved_plugin"]


def failing_plugin(error: Exception) -> tuple[str, str] | None:
    """Return the plugin whose code raised an exception, as ``NAME==VERSION``, and the innermost line of it."""
    packages = _packages()
    origin = None
    for frame, line in walk_tb(error.__traceback__):
        plugin = packages.get(_package(frame.f_globals.get("__name__")))
        if plugin is not None:
            origin = plugin, f"{frame.f_code.co_filename}:{line}"
    return origin


def involved_plugin(error: Exception) -> tuple[str, str] | None:
    """Return a plugin with an object in the code that raised, and the name of its class.

    A method with a wrong signature, or a result of a wrong shape, raises in the code of gptkit that calls or uses it. The
    object is a variable of a function in the traceback, the innermost one first, or a module of such a variable.
    """
    packages = _packages()
    if not packages:
        return None
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        for values in (_variables(frame), _modules(_variables(frame))):
            for value in values:
                plugin = packages.get(_package(getattr(type(value), "__module__", None)))
                if plugin is not None:
                    return plugin, type(value).__qualname__
    return None


def _packages() -> Mapping[str, str]:
    """Return the provenance of each installed plugin by its top-level package."""
    from gptkit.core.registry import default_registry

    return {_package(plugin.module): plugin.provenance for plugin in default_registry().plugins() if not plugin.built_in}


def _package(module: Any) -> str:
    return str(module or "").partition(":")[0].partition(".")[0]


def _variables(frame: FrameType) -> list[Any]:
    """Return the variables of a function that raised, its object first."""
    values = dict(frame.f_locals)
    return [values.pop("self", None), *values.values()]


def _modules(values: Iterable[Any]) -> list[Any]:
    """Return the modules of those values that are modules, or that have one as `model`."""
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    candidates = [each for value in values for each in (value, getattr(value, "__dict__", {}).get("model"))]
    return [module for each in candidates if isinstance(each, torch.nn.Module) for module in each.modules()]
