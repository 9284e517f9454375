"""Loading of plugins into a registry. A plugin that fails is recorded with its error; the others are unaffected."""

from __future__ import annotations

import contextlib
import io
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pluggy
from packaging.utils import canonicalize_name

from gptkit.core import hooks as hookspecs
from gptkit.core.component import Component
from gptkit.core.errors import CollisionError, RegistryError
from gptkit.core.registry.plugin import Entry, EntryPoint, Plugin, describe_plugin, in_order
from gptkit.core.suggestions import did_you_mean

__all__ = ["Contents", "Loader"]

_NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


@dataclass
class Contents:
    """Contents of a registry.

    Attributes:
        plugins: every entry point, working or not, in the order of loading.
        kinds: by name, in the order of registration.
        components: by kind and name.
        aliases: former names by kind, with the current name of each.
        clashes: plugins by kind and name, for names that several plugins define; these are unavailable.
    """

    plugins: list[Plugin] = field(default_factory=list)
    kinds: dict[str, Entry] = field(default_factory=dict)
    components: dict[str, dict[str, Entry]] = field(default_factory=dict)
    aliases: dict[str, dict[str, str]] = field(default_factory=dict)
    clashes: dict[tuple[str, str], list[Plugin]] = field(default_factory=dict)


class Loader:
    """Loader that imports entry points, calls their hooks and checks the results.

    Args:
        contents: filled in place, so that a plugin that uses the registry while loading receives what is registered so far.
    """

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)

    def load(self, entry_points: Iterable[EntryPoint], disabled: set[str]) -> None:
        """Load every plugin, then collect all kinds, then all components.

        Args:
            disabled: canonical names of distributions that are recorded but not loaded.
        """
        for entry_point in in_order(entry_points):
            plugin = describe_plugin(entry_point)
            self.contents.plugins.append(plugin)
            if canonicalize_name(plugin.distribution) in disabled:
                plugin.status = "disabled"
                continue
            with self._isolated(plugin, "could not be imported"):
                self._register(plugin, entry_point.load())
        for kinds_first in (True, False):
            self._collect(kinds_first)

    def _register(self, plugin: Plugin, module: Any) -> None:
        manager = self.manager
        if manager.is_registered(module):
            raise RegistryError(f"names the same module as another entry point ({plugin.module})")
        manager.register(module, plugin.key)
        hooks = [name for name in dir(hookspecs) if name.startswith("gptkit_")]
        try:
            manager.check_pending()
        except pluggy.PluginValidationError:
            marked = [name for name in dir(module) if manager.parse_hookimpl_opts(module, name) is not None]
            unknown = next((name for name in marked if name not in hooks), "?")
            manager.unregister(module)
            raise RegistryError(f"implements an unknown hook {unknown!r}; {did_you_mean(unknown, hooks)}") from None
        if not manager.get_hookcallers(module):
            manager.unregister(module)
            raise RegistryError(f"implements no hook; mark one of {', '.join(hooks)} with @gptkit.hookimpl")

    def _collect(self, kinds: bool) -> None:
        caller = self.manager.hook.gptkit_kinds if kinds else self.manager.hook.gptkit_components
        implementations = {implementation.plugin_name: implementation for implementation in caller.get_hookimpls()}
        # pluggy would call all implementations at once; one at a time, an exception affects its own plugin only.
        for plugin in self.contents.plugins:
            implementation = implementations.get(plugin.key)
            if implementation is None or plugin.status != "active":
                continue
            with self._isolated(plugin, f"raised in {caller.name}"):
                classes = _as_classes(implementation.function(), caller.name)
                for cls in classes:
                    _check_class(cls, self.contents.kinds, kinds)
                if kinds:
                    for cls in classes:
                        self._add_kind(plugin, cls)
                else:
                    self._check_names(plugin, classes)
                    for cls in classes:
                        self._add_component(plugin, cls)

    def _add_kind(self, plugin: Plugin, cls: type[Component]) -> None:
        held = self.contents.kinds.get(cls.kind)
        if held is not None:
            raise CollisionError(f"kind {cls.kind!r} is defined by both {held.plugin.provenance} and {plugin.provenance}")
        self.contents.kinds[cls.kind] = Entry(cls, plugin)
        plugin.kinds.append(cls.kind)

    def _check_names(self, plugin: Plugin, classes: Sequence[type[Component]]) -> None:
        """Reject a plugin, before anything of it is added, if a name is defined twice or built in."""
        own: set[tuple[str, str]] = set()
        for cls in classes:
            kind, name = cls.kind, cls.component_name()
            held = self.contents.components.get(kind, {}).get(name)
            if (kind, name) in own:
                raise CollisionError(f"provides two components called {kind} {name!r}")
            if held is not None and held.plugin.built_in:
                raise CollisionError(
                    f"{kind} {name!r} is built in ({held.plugin.provenance}); {plugin.provenance} must choose another name"
                )
            own.add((kind, name))

    def _add_component(self, plugin: Plugin, cls: type[Component]) -> None:
        kind, name = cls.kind, cls.component_name()
        known = self.contents.components.setdefault(kind, {})
        held = known.pop(name, None)
        if held is not None or (kind, name) in self.contents.clashes:
            claimants = self.contents.clashes.setdefault((kind, name), [held.plugin] if held else [])
            claimants.append(plugin)
            both = " and ".join(claimant.provenance for claimant in claimants)
            for claimant in claimants:
                claimant.clashes[(kind, name)] = f"{kind} {name!r} is defined by {both}, so it is unavailable"
                claimant.error = "; ".join(claimant.clashes.values())
                claimant.components = [provided for provided in claimant.components if provided != (kind, name)]
            return
        known[name] = Entry(cls, plugin)
        plugin.components.append((kind, name))
        for alias in cls.aliases:
            self.contents.aliases.setdefault(kind, {}).setdefault(alias, name)

    @contextlib.contextmanager
    def _isolated(self, plugin: Plugin, what: str) -> Iterator[None]:
        """Record a plugin's exception as its error, and its output as printed."""
        output = io.StringIO()
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                yield
        except RegistryError as error:
            self._break(plugin, error.message)
        except (Exception, SystemExit) as error:
            first_line = str(error).strip().splitlines()[:1]
            self._break(plugin, ": ".join([what, type(error).__name__, *first_line]))
        finally:
            plugin.printed += output.getvalue()

    def _break(self, plugin: Plugin, error: str) -> None:
        plugin.status, plugin.error, plugin.detail = "broken", error, traceback.format_exc()
        # The kinds that a broken plugin has already added are removed.
        for kind in plugin.kinds:
            self.contents.kinds.pop(kind, None)
        plugin.kinds = []


def _as_classes(returned: Any, hook: str) -> list[type[Component]]:
    if isinstance(returned, (str, bytes, Mapping)) or not isinstance(returned, Iterable):
        raise RegistryError(f"{hook} returned {type(returned).__name__}, not a list of spec classes")
    classes = list(returned)
    for item in classes:
        if not (isinstance(item, type) and issubclass(item, Component)):
            raise RegistryError(f"{hook} returned {item!r:.80}, which is not a subclass of gptkit.kinds' base classes")
    return classes


def _check_class(cls: type[Component], kinds: Mapping[str, Entry], as_kind: bool) -> None:
    where = f"{cls.__module__}.{cls.__qualname__}"
    if as_kind:
        if not cls.is_kind():
            raise RegistryError(f"{where} is not a kind: it does not set the class variable `kind`")
        if not _NAME.fullmatch(cls.kind):
            raise RegistryError(f"{where}: kind {cls.kind!r} must be lower-case words joined by hyphens")
        return
    if cls.is_kind():
        raise RegistryError(f"{where} is a kind; return it from gptkit_kinds")
    if not hasattr(cls, "kind") or cls.kind not in kinds:
        raise RegistryError(f"{where} belongs to no registered kind")
    if not issubclass(cls, kinds[cls.kind].cls):
        raise RegistryError(f"{where} is not a subclass of the registered kind {cls.kind!r}")
    name = cls.component_name()
    if not _NAME.fullmatch(name):
        raise RegistryError(f"{where}: the name {name!r} must be lower-case words joined by hyphens")
    if cls.model_fields["name"].default != name:
        raise RegistryError(f'{where}: give the name its default, `name: Literal["{name}"] = "{name}"`')
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise RegistryError(f"{where} does not implement {', '.join(missing)}")
