"""Plugin records: an entry point, its distribution, its components, and its error if it failed."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from packaging.utils import canonicalize_name

from gptkit.core.component import Component

__all__ = [
    "DISABLE",
    "GROUP",
    "Entry",
    "EntryPoint",
    "Plugin",
    "describe_plugin",
    "disabled_distributions",
    "in_order",
    "installed",
]

GROUP = "gptkit"
DISABLE = "GPTKIT_DISABLE"


class EntryPoint(Protocol):
    """The part of an importlib.metadata entry point that the registry uses."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def dist(self) -> Any: ...
    def load(self) -> Any: ...


@dataclass
class Plugin:
    """One entry point, with the kinds and components that it registered."""

    name: str
    distribution: str
    version: str
    module: str
    status: str = "active"
    """`active`, `disabled` (by GPTKIT_DISABLE) or `broken`."""
    error: str | None = None
    detail: str | None = None
    """The traceback of the error, for `gptkit plugins --verbose`."""
    kinds: list[str] = field(default_factory=list)
    components: list[tuple[str, str]] = field(default_factory=list)
    clashes: dict[tuple[str, str], str] = field(default_factory=dict)
    """Components that another plugin defines too, each with the error message."""
    printed: str = ""
    """Output to stdout or stderr while the plugin was loaded, which is not part of the output of commands."""

    @property
    def provenance(self) -> str:
        return f"{self.distribution}=={self.version}"

    @property
    def built_in(self) -> bool:
        return canonicalize_name(self.distribution) == "gptkit"

    @property
    def key(self) -> str:
        """Name of the plugin in pluggy's manager."""
        return f"{self.distribution}:{self.name}"


@dataclass(frozen=True)
class Entry:
    """A registered component (or kind) and the plugin that provides it."""

    cls: type[Component]
    plugin: Plugin


def installed() -> Iterable[EntryPoint]:
    """Return every installed entry point of the group ``gptkit``."""
    return importlib.metadata.entry_points(group=GROUP)


def in_order(entry_points: Iterable[EntryPoint]) -> list[EntryPoint]:
    """Return the entry points in the order of loading: built-in first, then by distribution and name."""

    def key(entry_point: EntryPoint) -> tuple[bool, str, str]:
        distribution = canonicalize_name(_distribution(entry_point)[0])
        return (distribution != "gptkit", distribution, entry_point.name)

    return sorted(entry_points, key=key)


def describe_plugin(entry_point: EntryPoint) -> Plugin:
    """Return the record of an entry point that is not loaded yet."""
    distribution, version = _distribution(entry_point)
    return Plugin(entry_point.name, distribution, version, entry_point.value)


def disabled_distributions() -> set[str]:
    """Return the distributions in GPTKIT_DISABLE, in canonical form."""
    named = os.environ.get(DISABLE, "").split(",")
    return {str(canonicalize_name(name.strip())) for name in named if name.strip()}


def _distribution(entry_point: EntryPoint) -> tuple[str, str]:
    dist = getattr(entry_point, "dist", None)
    if dist is None:
        return entry_point.name, "0"
    return dist.name, dist.version
