"""The registry: which kinds and components are installed, who brought them, and what is wrong with the rest.

It is the only user of pluggy's manager, loads on first use, and keeps every plugin apart from the others: one that
fails is recorded with its error, and the rest works.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import io
import logging
import os
import re
import shlex
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pluggy
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from gptkit.core import hooks as hookspecs
from gptkit.core.errors import CollisionError, RegistryError, RequirementError, UnknownComponentError
from gptkit.core.spec import Component, shortened

__all__ = ["Entry", "Plugin", "Registry", "check_requirements", "default_registry", "did_you_mean"]

_log = logging.getLogger("gptkit")

GROUP = "gptkit"
DISABLE = "GPTKIT_DISABLE"
_NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
_MANY = 30
"""More names than this are not listed one by one."""


class _EntryPoint(Protocol):
    """What the registry needs of an importlib.metadata entry point."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def dist(self) -> Any: ...
    def load(self) -> Any: ...


@dataclass
class Plugin:
    """One entry point: where it came from, what it brought, and its error if it has one."""

    name: str
    distribution: str
    version: str
    module: str
    status: str = "active"
    """`active`, `disabled` (by GPTKIT_DISABLE) or `broken`."""
    error: str | None = None
    detail: str | None = None
    """The traceback behind the error, for `gptkit plugins --verbose`."""
    kinds: list[str] = field(default_factory=list)
    components: list[tuple[str, str]] = field(default_factory=list)
    clashes: dict[tuple[str, str], str] = field(default_factory=dict)
    """Components that another plugin brings too, each with the sentence that says so."""
    printed: str = ""
    """What the plugin wrote to stdout or stderr while it was loaded; shown, but kept out of other commands' output."""

    @property
    def provenance(self) -> str:
        return f"{self.distribution}=={self.version}"

    @property
    def built_in(self) -> bool:
        return canonicalize_name(self.distribution) == "gptkit"


@dataclass(frozen=True)
class Entry:
    """A registered component (or kind) and the plugin that brought it."""

    cls: type[Component]
    plugin: Plugin


class Registry:
    """Kinds and components by name.

    Args:
        entry_points: what to load; by default every installed entry point of the group ``gptkit``. Tests hand in
            their own.
        disabled: distributions to leave out; by default those named in GPTKIT_DISABLE.
    """

    def __init__(self, entry_points: Iterable[_EntryPoint] | None = None, disabled: Iterable[str] | None = None) -> None:
        self._given = None if entry_points is None else list(entry_points)
        self._disabled = None if disabled is None else {canonicalize_name(name) for name in disabled}
        self._lock = threading.RLock()
        self._loaded = False
        self._manager: pluggy.PluginManager | None = None
        self._plugins: list[Plugin] = []
        self._kinds: dict[str, Entry] = {}
        self._components: dict[str, dict[str, Entry]] = {}
        self._aliases: dict[str, dict[str, str]] = {}
        self._clashes: dict[tuple[str, str], list[Plugin]] = {}

    # -- asking ------------------------------------------------------------------------------------------------

    def plugins(self) -> Sequence[Plugin]:
        """Every entry point found, working or not, built-ins first."""
        self._load()
        return tuple(self._plugins)

    def kinds(self) -> Mapping[str, Entry]:
        """Kinds by name, in the order they were registered."""
        self._load()
        return dict(self._kinds)

    def entries(self, kind: str) -> Mapping[str, Entry]:
        """The components of a kind by name.

        Raises:
            UnknownComponentError: there is no such kind.
        """
        self._load()
        self._require_kind(kind)
        return dict(sorted(self._components.get(kind, {}).items()))

    def names(self, kind: str) -> list[str]:
        """The names of a kind's components, sorted."""
        return list(self.entries(kind))

    def component(self, kind: str, name: str) -> type[Component]:
        """The spec class registered under a name.

        Raises:
            UnknownComponentError: nothing has that name; the message says what comes near, what there is, and which
                broken plugin might have brought it.
            CollisionError: two distributions took the name.
        """
        return self.entry(kind, name).cls

    def entry(self, kind: str, name: str) -> Entry:
        """As `component`, with the plugin that brought it."""
        self._load()
        self._require_kind(kind)
        claimants = self._clashes.get((kind, name))
        if claimants:
            both = " and ".join(plugin.provenance for plugin in claimants)
            switch = f"{DISABLE}={claimants[-1].distribution}"
            raise CollisionError(f"{kind} {name!r} is brought by {both}; uninstall one, or switch one off with {switch}")
        known = self._components.get(kind, {})
        alias = self._aliases.get(kind, {}).get(name)
        if alias is not None and name not in known:
            self.warn_renamed(f"{kind} {name!r}", alias)
            name = alias
        if name not in known:
            raise UnknownComponentError(self._unknown(kind, name, known))
        return known[name]

    def provenance(self, components: Iterable[Component]) -> dict[str, str]:
        """``{"norm rms": "gptkit==0.1.0", …}`` for the components given."""
        found = {}
        for spec in components:
            entry = self.entry(spec.kind, spec.name)
            found[f"{spec.kind} {spec.name}"] = entry.plugin.provenance
        return dict(sorted(found.items()))

    def call(self, hook: str, **arguments: Any) -> Iterator[tuple[Plugin, Any]]:
        """What each working plugin's implementation of a hook returns, in the order of loading.

        An implementation is given those arguments that it names, so a hook can gain more. One that raises is left out,
        with a warning in the log ``gptkit``.
        """
        self._load()
        assert self._manager is not None
        found = {impl.plugin_name: impl for impl in getattr(self._manager.hook, hook).get_hookimpls()}
        for plugin in self._plugins:
            implementation = found.get(f"{plugin.distribution}:{plugin.name}")
            if implementation is None or plugin.status != "active":
                continue
            try:
                returned = implementation.function(**{name: arguments[name] for name in implementation.argnames})
            except Exception as error:
                _log.warning("%s failed in %s and is left out: %s: %s", plugin.provenance, hook, type(error).__name__, error)
                continue
            yield plugin, returned

    @staticmethod
    def warn_renamed(old: str, new: str) -> None:
        warnings.warn(f"{old} is now called {new!r}; the old name still works", DeprecationWarning, stacklevel=2)

    # -- loading -----------------------------------------------------------------------------------------------

    def _load(self) -> None:
        with self._lock:
            if self._loaded:
                return
            # Set first: a plugin that asks the registry while it is loaded sees what there is so far.
            self._loaded = True
            try:
                self._load_plugins()
            except BaseException:
                # Interrupted, by Ctrl-C say: half a registry would give wrong answers ever after.
                for store in (self._plugins, self._kinds, self._components, self._aliases, self._clashes):
                    store.clear()
                self._loaded = False
                raise

    def _load_plugins(self) -> None:
        manager = self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        disabled = _disabled_distributions() if self._disabled is None else self._disabled
        for entry_point in _ordered(_installed() if self._given is None else self._given):
            plugin = _describe(entry_point)
            self._plugins.append(plugin)
            if canonicalize_name(plugin.distribution) in disabled:
                plugin.status = "disabled"
                continue
            with self._guard(plugin, "could not be imported"):
                self._admit(manager, plugin, entry_point.load())
        for kinds_first in (True, False):
            self._collect(manager, kinds_first)

    def _admit(self, manager: pluggy.PluginManager, plugin: Plugin, module: Any) -> None:
        name = f"{plugin.distribution}:{plugin.name}"
        if manager.is_registered(module):
            raise RegistryError(f"names the same module as another entry point ({plugin.module})")
        manager.register(module, name)
        try:
            manager.check_pending()
        except pluggy.PluginValidationError:
            marked = [n for n in dir(module) if manager.parse_hookimpl_opts(module, n) is not None]
            misspelt = [n for n in marked if not hasattr(hookspecs, n)]
            manager.unregister(module)
            hooks = [n for n in dir(hookspecs) if n.startswith("gptkit_")]
            wrong = misspelt[0] if misspelt else "?"
            raise RegistryError(f"implements an unknown hook {wrong!r}; {did_you_mean(wrong, hooks)}") from None
        if not manager.get_hookcallers(module):
            manager.unregister(module)
            listed = ", ".join(n for n in dir(hookspecs) if n.startswith("gptkit_"))
            raise RegistryError(f"implements no hook; mark one of {listed} with @gptkit.hookimpl")

    def _collect(self, manager: pluggy.PluginManager, kinds_first: bool) -> None:
        caller = manager.hook.gptkit_kinds if kinds_first else manager.hook.gptkit_components
        records = {f"{plugin.distribution}:{plugin.name}": plugin for plugin in self._plugins}
        # One implementation at a time, so that one that raises stops nobody else; in the order of loading.
        implementations = {impl.plugin_name: impl for impl in caller.get_hookimpls()}
        for name, plugin in records.items():
            implementation = implementations.get(name)
            if implementation is None or plugin.status != "active":
                continue
            with self._guard(plugin, f"raised in {caller.name}"):
                returned = implementation.function()
                classes = _as_classes(returned, caller.name)
                for cls in classes:
                    _check_class(cls, self._kinds, kinds_first)
                if not kinds_first:
                    self._check_names(plugin, classes)
                for cls in classes:
                    if kinds_first:
                        self._add_kind(plugin, cls)
                    else:
                        self._add_component(plugin, cls)

    def _add_kind(self, plugin: Plugin, cls: type[Component]) -> None:
        held = self._kinds.get(cls.kind)
        if held is not None:
            raise CollisionError(f"kind {cls.kind!r} is taken by {held.plugin.provenance}; {plugin.provenance} takes it too")
        self._kinds[cls.kind] = Entry(cls, plugin)
        plugin.kinds.append(cls.kind)

    def _check_names(self, plugin: Plugin, classes: Sequence[type[Component]]) -> None:
        """Refuse a plugin as a whole, before anything of it is added, for a conflict of names."""
        own: set[tuple[str, str]] = set()
        for cls in classes:
            kind, name = cls.kind, cls.component_name()
            held = self._components.get(kind, {}).get(name)
            if (kind, name) in own:
                raise CollisionError(f"brings two components called {kind} {name!r}")
            if held is not None and held.plugin.built_in:
                raise CollisionError(
                    f"{kind} {name!r} is built in ({held.plugin.provenance}); {plugin.provenance} must choose another name"
                )
            own.add((kind, name))

    def _add_component(self, plugin: Plugin, cls: type[Component]) -> None:
        kind, name = cls.kind, cls.component_name()
        known = self._components.setdefault(kind, {})
        held = known.pop(name, None)
        if held is not None or (kind, name) in self._clashes:
            claimants = self._clashes.setdefault((kind, name), [held.plugin] if held else [])
            claimants.append(plugin)
            both = " and ".join(claimant.provenance for claimant in claimants)
            for claimant in claimants:
                claimant.clashes[(kind, name)] = f"{kind} {name!r} is taken by {both}, so it can be used from neither"
                claimant.error = "; ".join(claimant.clashes.values())
                claimant.components = [brought for brought in claimant.components if brought != (kind, name)]
            return
        known[name] = Entry(cls, plugin)
        plugin.components.append((kind, name))
        for alias in cls.aliases:
            self._aliases.setdefault(kind, {}).setdefault(alias, name)

    @contextlib.contextmanager
    def _guard(self, plugin: Plugin, what: str) -> Iterator[None]:
        """Keep a plugin's exception as its error, and its prints out of everybody's output."""
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
        # All or nothing: the kinds that a broken plugin had already added go with it.
        for kind in plugin.kinds:
            self._kinds.pop(kind, None)
        plugin.kinds = []

    # -- messages ----------------------------------------------------------------------------------------------

    def _require_kind(self, kind: str) -> None:
        if kind not in self._kinds:
            raise UnknownComponentError(f"unknown kind {shortened(kind)!r}; {did_you_mean(kind, list(self._kinds))}")

    def _unknown(self, kind: str, name: str, known: Mapping[str, Entry]) -> str:
        message = f"unknown {kind} {shortened(name)!r}; {did_you_mean(name, sorted(known))}"
        broken = [plugin for plugin in self._plugins if plugin.status == "broken"]
        off = [plugin for plugin in self._plugins if plugin.status == "disabled"]
        if broken:
            listed = ", ".join(f"{plugin.provenance} ({plugin.error})" for plugin in broken)
            message += f". It may belong to a plugin that did not load: {listed}"
        if off:
            message += f". Switched off by {DISABLE}: {', '.join(plugin.provenance for plugin in off)}"
        return message


_default: Registry | None = None
_default_lock = threading.Lock()


def default_registry() -> Registry:
    """The registry of what is installed, made on first use and shared by the process."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Registry()
        return _default


def check_requirements(requirements: Sequence[str]) -> list[tuple[int, str]]:
    """Which PEP 508 requirements are not met: their index, and what to install."""
    unmet = []
    for index, text in enumerate(requirements):
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            unmet.append((index, f"{text!r} is no requirement: {str(error).splitlines()[0]}"))
            continue
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            unmet.append((index, f"{requirement.name} is not installed; run: pip install {shlex.quote(text)}"))
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            needs = f"needs {requirement.name}{requirement.specifier} but {found} is installed"
            unmet.append((index, f"{needs}; run: pip install {shlex.quote(text)}"))
    return unmet


def require(requirements: Sequence[str]) -> None:
    """Raise a `RequirementError` unless every requirement is met."""
    unmet = check_requirements(requirements)
    if unmet:
        raise RequirementError("\n".join(message for _, message in unmet))


def _installed() -> Iterable[_EntryPoint]:
    return importlib.metadata.entry_points(group=GROUP)


def _ordered(entry_points: Iterable[_EntryPoint]) -> list[_EntryPoint]:
    def key(entry_point: _EntryPoint) -> tuple[bool, str, str]:
        distribution = canonicalize_name(_distribution(entry_point)[0])
        return (distribution != "gptkit", distribution, entry_point.name)

    return sorted(entry_points, key=key)


def _distribution(entry_point: _EntryPoint) -> tuple[str, str]:
    dist = getattr(entry_point, "dist", None)
    if dist is None:
        return entry_point.name, "0"
    return dist.name, dist.version


def _describe(entry_point: _EntryPoint) -> Plugin:
    distribution, version = _distribution(entry_point)
    return Plugin(entry_point.name, distribution, version, entry_point.value)


def _disabled_distributions() -> set[str]:
    named = os.environ.get(DISABLE, "").split(",")
    return {str(canonicalize_name(name.strip())) for name in named if name.strip()}


def _as_classes(returned: Any, hook: str) -> list[type[Component]]:
    if isinstance(returned, (str, bytes, Mapping)) or not isinstance(returned, Iterable):
        raise RegistryError(f"{hook} returned {type(returned).__name__} where a list of spec classes belongs")
    classes = list(returned)
    for item in classes:
        if not (isinstance(item, type) and issubclass(item, Component)):
            raise RegistryError(f"{hook} returned {item!r:.80}, which is no subclass of gptkit.kinds' base classes")
    return classes


def _check_class(cls: type[Component], kinds: Mapping[str, Entry], as_kind: bool) -> None:
    where = f"{cls.__module__}.{cls.__qualname__}"
    if as_kind:
        if not cls.is_kind():
            raise RegistryError(f"{where} is no kind: it does not set the class variable `kind`")
        if not _NAME.fullmatch(cls.kind):
            raise RegistryError(f"{where}: kind {cls.kind!r} must be lower-case words joined by hyphens")
        return
    if cls.is_kind():
        raise RegistryError(f"{where} is a kind; return it from gptkit_kinds")
    if not hasattr(cls, "kind") or cls.kind not in kinds:
        raise RegistryError(f"{where} belongs to no registered kind")
    if not issubclass(cls, kinds[cls.kind].cls):
        raise RegistryError(f"{where} is no subclass of the registered kind {cls.kind!r}")
    name = cls.component_name()
    if not _NAME.fullmatch(name):
        raise RegistryError(f"{where}: the name {name!r} must be lower-case words joined by hyphens")
    if cls.model_fields["name"].default != name:
        raise RegistryError(f'{where}: give the name its default, `name: Literal["{name}"] = "{name}"`')
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise RegistryError(f"{where} does not implement {', '.join(missing)}")


def did_you_mean(name: str, known: Sequence[str], label: str = "registered") -> str:
    """The remedy for a name that is not there: what comes near it, and what there is."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    listed = f"{label}: {', '.join(known)}" if known else f"{label}: none"
    if len(known) > _MANY:
        near = difflib.get_close_matches(name, known, n=6, cutoff=0.3) or known[:6]
        listed = f"{label} {len(known)}, among them {', '.join(near)}"
    return f"did you mean {close[0]!r}? ({listed})" if close else listed
