"""Loading of plugins into a registry. A plugin that fails is recorded with its error; the others are unaffected."""

from __future__ import annotations

import contextlib
import io
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pluggy

from gptkit.core import hooks as hookspecs
from gptkit.core.component import Component
from gptkit.core.errors import CollisionError, RegistryError
from gptkit.core.lazy import LazyComponent
from gptkit.core.registry.checks import as_components, as_kinds, check_component, check_kind, check_lazy
from gptkit.core.registry.plugin import (
    DISABLE,
    Entry,
    EntryPoint,
    Pending,
    Plugin,
    canonical_name,
    described,
    require_module_path,
)
from gptkit.core.suggestions import did_you_mean

__all__ = ["Contents", "Loader"]


@dataclass
class Contents:
    """Contents of a registry.

    Attributes:
        plugins: every entry point, working or not, in the order of loading.
        kinds: by name, in the order of registration.
        components: by kind and name; lazy ones are pending until they are looked up.
        aliases: former names by kind, with the current name of each.
        clashes: plugins by kind and name, for names that several plugins define; these are unavailable.
    """

    plugins: list[Plugin] = field(default_factory=list)
    kinds: dict[str, Entry] = field(default_factory=dict)
    components: dict[str, dict[str, Entry | Pending]] = field(default_factory=dict)
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
        for entry_point, plugin in described(entry_points):
            self.contents.plugins.append(plugin)
            if canonical_name(plugin.distribution) in disabled:
                plugin.status = "disabled"
                continue
            with self._isolated(plugin, "could not be imported"):
                require_module_path(plugin)
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

    def loaded(self, kind: str, name: str) -> Entry:
        """Return the entry of a registered component; a lazy one is imported, and checked as others are on registration.

        Raises:
            RegistryError: the component cannot be imported or is invalid. Its plugin's record has the error, too.
        """
        entry = self.contents.components[kind][name]
        if isinstance(entry, Entry):
            return entry
        plugin = entry.plugin
        hint = f"See gptkit plugins --verbose; reinstalling {plugin.distribution} may help."
        if (kind, name) in plugin.unusable:
            raise RegistryError(plugin.unusable[(kind, name)], hint=hint)
        try:
            with _output_recorded(plugin):
                cls = entry.lazy.load()
                check_component(cls, self.contents.kinds)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, or a panic of an extension module
            reason = error.message if isinstance(error, RegistryError) else _summary(error)
            message = f"{kind} {name!r} of {plugin.provenance} could not be loaded: {reason}"
            plugin.add_unusable(kind, name, message)
            plugin.detail = traceback.format_exc()
            raise RegistryError(message, hint=hint) from error
        loaded = self.contents.components[kind][name] = Entry(cls, plugin)
        return loaded

    def _collect(self, kinds: bool) -> None:
        caller = self.manager.hook.gptkit_kinds if kinds else self.manager.hook.gptkit_components
        implementations = {implementation.plugin_name: implementation for implementation in caller.get_hookimpls()}
        # pluggy would call all implementations at once; one at a time, an exception affects its own plugin only.
        for plugin in self.contents.plugins:
            implementation = implementations.get(plugin.key)
            if implementation is None or plugin.status != "active":
                continue
            with self._isolated(plugin, f"raised in {caller.name}"):
                if kinds:
                    self._add_kinds(plugin, as_kinds(implementation.function()))
                else:
                    self._add_components(plugin, as_components(implementation.function()))

    def _add_kinds(self, plugin: Plugin, classes: Sequence[type[Component]]) -> None:
        for cls in classes:
            check_kind(cls)
        for cls in classes:
            held = self.contents.kinds.get(cls.kind)
            if held is not None:
                raise CollisionError(
                    f"kind {cls.kind!r} is defined by both {held.plugin.provenance} and {plugin.provenance}"
                )
            self.contents.kinds[cls.kind] = Entry(cls, plugin)
            plugin.kinds.append(cls.kind)

    def _add_components(self, plugin: Plugin, components: Sequence[type[Component] | LazyComponent]) -> None:
        for component in components:
            if isinstance(component, LazyComponent):
                check_lazy(component, self.contents.kinds)
            else:
                check_component(component, self.contents.kinds)
        self._check_names(plugin, components)
        for component in components:
            self._add_component(plugin, component)

    def _check_names(self, plugin: Plugin, components: Sequence[type[Component] | LazyComponent]) -> None:
        """Reject a plugin, before anything of it is added, if a name is defined twice or built in."""
        own: set[tuple[str, str]] = set()
        for component in components:
            kind, name = component.kind, component.component_name()
            held = self.contents.components.get(kind, {}).get(name)
            if (kind, name) in own:
                raise CollisionError(f"provides two components called {kind} {name!r}")
            if held is not None and held.plugin.built_in:
                raise CollisionError(
                    f"{kind} {name!r} is built in ({held.plugin.provenance}); {plugin.provenance} must choose another name"
                )
            own.add((kind, name))

    def _add_component(self, plugin: Plugin, component: type[Component] | LazyComponent) -> None:
        kind, name = component.kind, component.component_name()
        known = self.contents.components.setdefault(kind, {})
        held = known.pop(name, None)
        if held is not None or (kind, name) in self.contents.clashes:
            claimants = self.contents.clashes.setdefault((kind, name), [held.plugin] if held else [])
            claimants.append(plugin)
            both = " and ".join(claimant.provenance for claimant in claimants)
            for claimant in claimants:
                remedy = f"uninstall one, or disable one with {DISABLE}={claimants[-1].distribution}"
                message = f"{kind} {name!r} is defined by {both}, so it is unavailable; {remedy}"
                claimant.add_unusable(kind, name, message)
                claimant.components = [provided for provided in claimant.components if provided != (kind, name)]
            return
        if isinstance(component, LazyComponent):
            known[name] = Pending(component, plugin)
        else:
            known[name] = Entry(component, plugin)
        plugin.components.append((kind, name))
        for alias in component.aliases:
            self.contents.aliases.setdefault(kind, {}).setdefault(alias, name)

    @contextlib.contextmanager
    def _isolated(self, plugin: Plugin, what: str) -> Iterator[None]:
        """Record a plugin's exception as its error, and its output as printed."""
        try:
            with _output_recorded(plugin):
                yield
        except RegistryError as error:
            self._break(plugin, f"{error.message}. {error.hint}" if error.hint else error.message)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, or a panic of an extension module
            self._break(plugin, f"{what}: {_summary(error)}{_location(error, plugin)}{_remedy(error, plugin)}")

    def _break(self, plugin: Plugin, error: str) -> None:
        plugin.status, plugin.error, plugin.detail = "broken", error, traceback.format_exc()
        # The kinds that a broken plugin has already added are removed.
        for kind in plugin.kinds:
            self.contents.kinds.pop(kind, None)
        plugin.kinds = []


@contextlib.contextmanager
def _output_recorded(plugin: Plugin) -> Iterator[None]:
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield
    finally:
        plugin.printed += output.getvalue()


def _location(error: BaseException, plugin: Plugin) -> str:
    """Return `` (file:line)`` of the innermost line of a plugin's own code that raised; "" if none did."""
    package, location = _package(plugin), ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] == package:
            location = f" ({frame.f_code.co_filename}:{line})"
    return location


def _package(plugin: Plugin) -> str:
    return plugin.module.partition(":")[0].partition(".")[0]


def _remedy(error: BaseException, plugin: Plugin) -> str:
    """Return the remedy for an import that fails: of another distribution, or of another version of gptkit; else ""."""
    if not isinstance(error, ImportError):
        return ""
    package = (error.name or "").partition(".")[0]
    if package != "gptkit":
        missing = isinstance(error, ModuleNotFoundError) and package not in ("", _package(plugin))
        return (
            f"; install the distribution with {package}; its author adds it to the plugin's dependencies" if missing else ""
        )
    from gptkit import __version__

    return f"; it may have been written for another version than gptkit {__version__}: update both"


def _summary(error: BaseException) -> str:
    """The type and the first line of an exception's message: ``ImportError: No module named 'flash'``."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
