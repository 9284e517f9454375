"""Registries of the built-in components and further plugins, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gptkit.components import plugin as components
from gptkit.core.registry import Registry
from gptkit.interop import plugin as interop
from gptkit.kinds import plugin as kinds
from tests.support.fake_plugins import FakeDistribution, FakeEntryPoint

__all__ = ["registry_of"]


def registry_of(**plugins: Callable[[], Any]) -> Registry:
    """Return a registry of the built-in components and of plugins, given as distribution name and loader of the module."""

    def point(name: str, distribution: str, load: Callable[[], Any]) -> FakeEntryPoint:
        return FakeEntryPoint(name, name, FakeDistribution(distribution, "1.0"), load)

    own = {"kinds": kinds, "components": components, "interop": interop}
    built_in = [point(name, "gptkit", lambda module=module: module) for name, module in own.items()]  # type: ignore[misc]
    return Registry([*built_in, *(point(name, name.replace("_", "-"), load) for name, load in plugins.items())], ())
