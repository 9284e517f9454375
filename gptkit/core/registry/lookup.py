"""`Registry`: kinds and components by name."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gptkit.core.component import Component, set_default_resolver
from gptkit.core.errors import CollisionError, RegistryError, UnknownComponentError
from gptkit.core.registry.known import distribution_of
from gptkit.core.registry.loader import Contents, Loader
from gptkit.core.registry.other_names import own_name, remark
from gptkit.core.registry.plugin import (
    DISABLE,
    Entry,
    EntryPoint,
    Plugin,
    canonical_name,
    disabled_distributions,
    installed,
)
from gptkit.core.spec import shortened
from gptkit.core.suggestions import did_you_mean

__all__ = ["Registry", "default_registry"]

_log = logging.getLogger("gptkit")


class Registry:
    """Kinds and components by name, loaded on first use.

    Args:
        entry_points: the plugins to load; by default every installed entry point of the group ``gptkit``. Tests pass
            their own.
        disabled: distributions not to load; by default those named in GPTKIT_DISABLE.
    """

    def __init__(self, entry_points: Iterable[EntryPoint] | None = None, disabled: Iterable[str] | None = None) -> None:
        self._entry_points = None if entry_points is None else list(entry_points)
        self._disabled = None if disabled is None else {canonical_name(name) for name in disabled}
        self._lock = threading.RLock()
        self._loaded = False
        self._contents = Contents()
        self._loader = Loader(self._contents)

    def plugins(self) -> Sequence[Plugin]:
        """Return all entry points, working or not, built-in ones first."""
        return tuple(self._load().plugins)

    def kinds(self) -> Mapping[str, Entry]:
        """Return the kinds by name, in the order of registration."""
        return dict(self._load().kinds)

    def entries(self, kind: str) -> Mapping[str, Entry]:
        """Return the components of a kind, all imported. One that cannot be imported is omitted, with a warning in the log.

        Raises:
            UnknownComponentError: the kind is unknown.
        """
        entries = {}
        for name in self.names(kind):
            try:
                entries[name] = self._import(kind, name)
            except RegistryError as error:
                _log.warning("%s", error.message)
        return entries

    def names(self, kind: str) -> list[str]:
        """Return the names of a kind's components, sorted; none is imported for it.

        Raises:
            UnknownComponentError: the kind is unknown.
        """
        contents = self._load()
        self._require_kind(kind)
        return sorted(contents.components.get(kind, {}))

    def clashes(self, kind: str) -> dict[str, str]:
        """Return the names of a kind that several distributions registered, each with the message of its error."""
        clashes = self._load().clashes
        return {name: _clash(kind, name, claimants) for (held, name), claimants in sorted(clashes.items()) if held == kind}

    def component(self, kind: str, name: str) -> type[Component]:
        """Return the spec class registered under a name.

        Raises:
            UnknownComponentError: the name is not registered; the message has the closest match, the registered names, and
                the broken plugins that might define it.
            CollisionError: two distributions registered the name.
            RegistryError: the component cannot be imported.
        """
        return self.entry(kind, name).cls

    def entry(self, kind: str, name: str) -> Entry:
        """Return a component with the plugin that provides it; raises as `component`."""
        contents = self._load()
        self._require_kind(kind)
        claimants = contents.clashes.get((kind, name))
        if claimants:
            raise CollisionError(_clash(kind, name, claimants))
        known = contents.components.get(kind, {})
        alias = contents.aliases.get(kind, {}).get(name)
        if alias is not None and name not in known:
            self.warn_renamed(f"{kind} {name!r}", alias)
            name = alias
        if name not in known:
            raise UnknownComponentError(self._unknown(kind, name, known))
        return self._import(kind, name)

    def provenance(self, components: Iterable[Component]) -> dict[str, str]:
        """Return the distributions of components: ``{"norm rms": "gptkit==0.1.0", …}``."""
        provenance = {f"{spec.kind} {spec.name}": self.entry(spec.kind, spec.name).plugin.provenance for spec in components}
        return dict(sorted(provenance.items()))

    def call(self, hook: str, **arguments: Any) -> Iterator[tuple[Plugin, Any]]:
        """Yield the result of each working plugin's implementation of a hook, in the order of loading.

        An implementation receives the arguments that it declares, so hooks can be extended. One that raises is skipped,
        with a warning in the log ``gptkit``.
        """
        contents = self._load()
        implementations = {impl.plugin_name: impl for impl in getattr(self._loader.manager.hook, hook).get_hookimpls()}
        for plugin in contents.plugins:
            implementation = implementations.get(plugin.key)
            if implementation is None or plugin.status != "active":
                continue
            try:
                returned = implementation.function(**{name: arguments[name] for name in implementation.argnames})
                returned = list(returned) if isinstance(returned, Iterator) else returned  # a generator may raise, too
            except (Exception, SystemExit) as error:
                _log.warning("%s failed in %s and is skipped: %s: %s", plugin.provenance, hook, type(error).__name__, error)
                continue
            yield plugin, returned

    def warn_renamed(self, old: str, new: str) -> None:
        """Warn that a former name was used."""
        warnings.warn(f"{old} is now called {new!r}; the old name still works", DeprecationWarning, stacklevel=2)

    def _load(self) -> Contents:
        with self._lock:
            if not self._loaded:
                # Set first: a plugin may use the registry while it is loaded.
                self._loaded = True
                try:
                    self._loader.load(
                        installed() if self._entry_points is None else self._entry_points,
                        disabled_distributions() if self._disabled is None else self._disabled,
                    )
                except BaseException:
                    # Interrupted, by Ctrl-C for example: do not keep a partially loaded registry.
                    self._loaded = False
                    self._contents = Contents()
                    self._loader = Loader(self._contents)
                    raise
            return self._contents

    def _import(self, kind: str, name: str) -> Entry:
        with self._lock:
            return self._loader.loaded(kind, name)

    def _require_kind(self, kind: str) -> None:
        kinds = self._contents.kinds
        if kind not in kinds:
            raise UnknownComponentError(f"unknown kind {shortened(kind)!r}; {did_you_mean(kind, list(kinds))}")

    def _unknown(self, kind: str, name: str, known: Iterable[str]) -> str:
        names = sorted(known)
        meant = own_name(kind, name, names)
        remedy = did_you_mean(name, names)
        if meant is not None:
            more = remark(kind, name)
            remedy = f"did you mean {meant!r}{f', {more}' if more else ''}? (registered: {', '.join(names)})"
        message = f"unknown {kind} {shortened(name)!r}; {remedy}"
        broken = [plugin for plugin in self._contents.plugins if plugin.status == "broken"]
        disabled = [plugin for plugin in self._contents.plugins if plugin.status == "disabled"]
        own = distribution_of(kind, name)
        if own is not None and own not in {canonical_name(plugin.distribution) for plugin in self._contents.plugins}:
            message += f". It belongs to {own}, which is not installed: pip install {own}"
        if broken:
            listed = ", ".join(f"{plugin.provenance} ({plugin.error})" for plugin in broken)
            message += f". It may belong to a plugin that did not load: {listed}"
        if disabled:
            message += f". Disabled by {DISABLE}: {', '.join(plugin.provenance for plugin in disabled)}"
        return message


_default: Registry | None = None
_default_lock = threading.Lock()


def default_registry() -> Registry:
    """Return the registry of the installed plugins, created on first use and shared by the process."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Registry()
        return _default


set_default_resolver(default_registry)


def _clash(kind: str, name: str, claimants: Sequence[Plugin]) -> str:
    both = " and ".join(plugin.provenance for plugin in claimants)
    switch = f"{DISABLE}={claimants[-1].distribution}"
    return f"{kind} {name!r} is provided by {both}; uninstall one, or disable one with {switch}"
