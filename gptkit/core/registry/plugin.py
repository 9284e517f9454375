"""Plugin records: an entry point, its distribution, its components, and its error if it failed."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gptkit.core.component import Component
from gptkit.core.errors import RegistryError
from gptkit.core.lazy import LazyComponent

__all__ = [
    "DISABLE",
    "GROUP",
    "Entry",
    "EntryPoint",
    "Pending",
    "Plugin",
    "canonical_name",
    "described",
    "disabled_distributions",
    "installed",
    "require_module_path",
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
    unusable: dict[tuple[str, str], str] = field(default_factory=dict)
    """Components that another plugin defines too, or that cannot be imported, each with the error message."""
    printed: str = ""
    """Output to stdout or stderr while the plugin was loaded, which is not part of the output of commands."""

    @property
    def provenance(self) -> str:
        return f"{self.distribution}=={self.version}"

    @property
    def built_in(self) -> bool:
        return canonical_name(self.distribution) == "gptkit"

    @property
    def key(self) -> str:
        """Name of the plugin in pluggy's manager."""
        return f"{self.distribution}:{self.name}"

    def add_unusable(self, kind: str, name: str, message: str) -> None:
        """Record that a component of this plugin cannot be used; the others can."""
        self.unusable[(kind, name)] = message
        self.error = "; ".join(self.unusable.values())


@dataclass(frozen=True)
class Entry:
    """A registered component (or kind) and the plugin that provides it."""

    cls: type[Component]
    plugin: Plugin


@dataclass(frozen=True)
class Pending:
    """A registered component whose class is not imported yet."""

    lazy: LazyComponent
    plugin: Plugin


def installed() -> Iterable[EntryPoint]:
    """Return every installed entry point of the group ``gptkit``."""
    return importlib.metadata.entry_points(group=GROUP)


def described(entry_points: Iterable[EntryPoint]) -> list[tuple[EntryPoint, Plugin]]:
    """Return the entry points and their records in the order of loading: built-in first, then by distribution and name."""
    distributions: dict[int, tuple[str, str]] = {}  # reading a distribution's metadata parses its whole README
    records = []
    for entry_point in entry_points:
        key = id(getattr(entry_point, "dist", None) or entry_point)
        if key not in distributions:
            distributions[key] = _distribution(entry_point)
        records.append((entry_point, Plugin(entry_point.name, *distributions[key], entry_point.value)))
    return sorted(
        records,
        key=lambda record: (not record[1].built_in, canonical_name(record[1].distribution), record[1].name),
    )


def disabled_distributions() -> set[str]:
    """Return the distributions in GPTKIT_DISABLE, in canonical form.

    Raises:
        RegistryError: gptkit is one of them; without its own components, there is nothing to compose.
    """
    named = {canonical_name(name) for name in os.environ.get(DISABLE, "").split(",") if name.strip()}
    if "gptkit" in named:
        raise RegistryError(f"{DISABLE} names gptkit itself", hint=f"Remove it from {DISABLE}, which is for plugins.")
    return named


def canonical_name(distribution: str) -> str:
    """Return the canonical form of a distribution's name (PEP 503). packaging.utils, which has it too, is slow to import."""
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


def require_module_path(plugin: Plugin) -> None:
    """Raise `RegistryError` if an entry point does not name a module, or an object in one.

    Raises:
        RegistryError: names the value and the form that is expected.
    """
    if not re.fullmatch(r"[\w.]+(\s*:\s*[\w.]+)?(\s*\[.*\])?", plugin.module.strip()):
        remedy = "write package.module or package.module:object"
        raise RegistryError(f"its entry point {plugin.name} = {plugin.module!r} names no module; {remedy}")


def _distribution(entry_point: EntryPoint) -> tuple[str, str]:
    dist = getattr(entry_point, "dist", None)
    if dist is None:
        return entry_point.name, "0"
    # A directory without METADATA, left by an interrupted installation, has neither.
    return dist.name or entry_point.name, dist.version or "0"
