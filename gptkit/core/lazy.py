"""Lazy components: registered by name, and imported when they are first looked up.

A spec class costs a few milliseconds to import and build, and a spec uses a dozen of the components that are installed.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gptkit.core.component import Component
from gptkit.core.errors import RegistryError

__all__ = ["LazyComponent", "declared_in"]


@dataclass(frozen=True)
class LazyComponent:
    """Reference to a component's spec class; `gptkit_components` may return it in place of the class.

    Args:
        kind: the kind's name.
        name: the component's name.
        location: the spec class, as ``module:Class``.
        aliases: the class's former names.
    """

    kind: str
    name: str
    location: str
    aliases: tuple[str, ...] = ()

    def component_name(self) -> str:
        """Return the component's name, as `Component.component_name` returns it."""
        return self.name

    def load(self) -> type[Component]:
        """Import the spec class.

        Raises:
            RegistryError: the location has no spec class, or one whose kind, name or aliases are not those declared here.
            Exception: whatever the import raises.
        """
        module, _, attribute = self.location.partition(":")
        cls = getattr(importlib.import_module(module), attribute, None)
        if not (isinstance(cls, type) and issubclass(cls, Component)):
            raise RegistryError(f"{self.location} is not a spec class; write module:Class")
        defined = (getattr(cls, "kind", None), cls.component_name(), tuple(cls.aliases))
        if defined != (self.kind, self.name, self.aliases):
            raise RegistryError(f"{self.location} is {defined}, but declared as {(self.kind, self.name, self.aliases)}")
        return cls


_DECLARATION = re.compile(
    r"""^class\ (?P<cls>\w+)
    |   ^[ ]{4}name:\ Literal\["(?P<name>[^"]+)"\]
    |   ^[ ]{4}aliases:\ [^=]+=\ \((?P<aliases>[^)]*)\)""",
    re.MULTILINE | re.VERBOSE,
)


def declared_in(path: Path, module: str, kind: str) -> Iterator[LazyComponent]:
    """Find the components that a source file defines, without importing it.

    A component is a class of the module whose body has a line ``name: Literal["…"]``, and may have ``aliases: … = (…)``
    after it.

    Args:
        path: the source file.
        module: the name that the file is imported by.
        kind: the kind of its components.
    """
    cls, result = "", None
    for match in _DECLARATION.finditer(path.read_text(encoding="utf-8")):
        if match["aliases"] is not None and result is not None:
            result = LazyComponent(kind, result.name, result.location, tuple(re.findall(r'"([^"]+)"', match["aliases"])))
            continue
        if result is not None:
            yield result
        cls = match["cls"] or cls
        result = LazyComponent(kind, match["name"], f"{module}:{cls}") if match["name"] else None
    if result is not None:
        yield result
