"""Outcomes of the conformance checks of all installed components, for the page that shows them.

The outcomes of built-in components are stored (`gptkit.docs.outcomes`). Those that are not current, and the components of
plugins, are checked by one process for each core while the caller does other work, which takes minutes for all of them.
Their outcomes are kept in the cache directory. The key of an entry is a digest of the sources of gptkit and of the
component's package, and of the versions of the libraries that the checks compare with: a component is checked again when
one of these changes.

``python -m gptkit.docs.checked`` is such a process: it reads the kind and the name of one component after another from
standard input, and writes the outcomes of each to standard output.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gptkit.core.atomic import write_text
from gptkit.core.errors import FileError
from gptkit.core.paths import cache_directory
from gptkit.core.registry import Registry, default_registry
from gptkit.docs.checking_pool import Pool
from gptkit.docs.digests import package_sources
from gptkit.docs.outcomes.stored import LIBRARIES, current

__all__ = ["Checking", "Outcomes", "checked", "outcomes_of"]

Outcomes = dict[str, str]
"""The outcome of each check by its name; the worst one, where the instances of a component differ."""

_Name = tuple[str, str]

_WORST = ("failed", "unexpected", "expected", "passed", "skipped")
_LIBRARIES = (*LIBRARIES, "pydantic")
_KEPT = 4
"""Number of files that are kept, about 0.2 MB each; those written longest ago are removed."""
_OWN = re.compile(r"[0-9a-f]{16}\.json")
"""Names that this module gives to files. Nothing with another name is removed."""


def outcomes_of(registry: Registry, kind: str, name: str, expected: Mapping[str, str]) -> Outcomes:
    """Run all checks of a component except slow ones, with its defaults and each of its examples.

    Args:
        registry: where the component is looked up.
        kind: the component's kind.
        name: the component's name.
        expected: the checks that it is known to fail, with the reasons.
    """
    from gptkit.testing import Result, instances, run_checks

    try:
        specs = instances(registry.component(kind, name), registry)
    except Exception:  # a plugin's validator may raise anything
        return {"constructible": "failed"}
    results: dict[str, list[Result]] = {}
    for spec in specs:
        for result in run_checks(spec, expected_failures=expected, registry=registry):
            results.setdefault(result.check.name, []).append(result)
    return {check: min((result.outcome for result in some), key=_WORST.index) for check, some in results.items()}


class Checking:
    """Outcomes of components by kind and name, which are computed while the caller does other work.

    They are those that are stored and current, then those in the cache; missing ones are computed by several processes,
    which start at once.

    Args:
        registry: the components. Another one than that of what is installed is checked in this process, when the outcomes
            are asked for.
        kinds: the kinds to check; all by default.
        stored: use the stored outcomes.
    """

    def __init__(self, registry: Registry, kinds: Collection[str] | None = None, *, stored: bool = True) -> None:
        every = [(kind, name) for kind in registry.kinds() for name in registry.names(kind)]
        self._registry = registry
        self._names = every if kinds is None else [each for each in every if each[0] in kinds]
        self._keys: dict[_Name, str] = {}
        self._known: dict[str, Outcomes] = {}
        self._pool = Pool([])
        self._outcomes: dict[_Name, Outcomes] | None = None
        self._stored: Mapping[_Name, Outcomes] = current(registry) if stored else {}
        if registry is default_registry():
            self._keys = {(kind, name): _key(registry, kind, name) for kind, name in every}
            self._known = _read_all()
            missing = [each for each in self._names if each not in self._stored and self._keys[each] not in self._known]
            self._pool = Pool(missing)

    def outcomes(self) -> dict[_Name, Outcomes]:
        """Return the outcomes; wait for the processes that compute them.

        Raises:
            GptkitError: a process ended with an error.
        """
        if self._outcomes is None:
            self._outcomes = self._waited_for() if self._keys else self._computed_here()
        return self._outcomes

    def _computed_here(self) -> dict[_Name, Outcomes]:
        return {each: self._stored_or_checked(each) for each in self._names}

    def _stored_or_checked(self, each: _Name) -> Outcomes:
        return self._stored[each] if each in self._stored else outcomes_of(self._registry, *each, _expected(*each))

    def _waited_for(self) -> dict[_Name, Outcomes]:
        computed = self._pool.results()
        self._known |= {self._keys[each]: outcomes for each, outcomes in computed.items()}
        file = _file()
        if computed and file is not None:
            _write(file, {key: self._known[key] for key in self._keys.values() if key in self._known})
        return {each: self._stored[each] if each in self._stored else self._known[self._keys[each]] for each in self._names}

    def stop(self) -> None:
        """End the processes. Outcomes that are not computed are missing."""
        self._pool.stop()


def checked(registry: Registry, kinds: Collection[str] | None = None, *, stored: bool = True) -> dict[_Name, Outcomes]:
    """Return the outcomes of components as `Checking` does.

    Raises:
        GptkitError: a process ended with an error.
    """
    checking = Checking(registry, kinds, stored=stored)
    try:
        return checking.outcomes()
    finally:
        checking.stop()


def _expected(kind: str, name: str) -> Mapping[str, str]:
    from gptkit.testing import KNOWN_FAILURES

    return KNOWN_FAILURES.get(f"{kind} {name}", {})


def _key(registry: Registry, kind: str, name: str) -> str:
    entry = registry.entries(kind)[name]
    package = entry.cls.__module__.partition(".")[0]
    sources = [package_sources("gptkit"), package_sources(package)]
    parts = [kind, name, sys.version, *sources, *(_version(library) for library in _LIBRARIES)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@cache  # reading the metadata of a distribution takes a millisecond, and every component needs all of them
def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _file() -> Path | None:
    """Return the file of the outcomes for this environment; None if the user has no home directory."""
    try:
        place = hashlib.sha256(json.dumps([sys.prefix, str(Path(__file__).resolve())]).encode()).hexdigest()[:16]
        return cache_directory() / "conformance" / f"{place}.json"
    except RuntimeError:
        return None


def _read_all() -> dict[str, Outcomes]:
    """Return the outcomes in all files: a key describes what was checked, whichever environment checked it."""
    file = _file()
    files = [] if file is None else sorted(each for each in file.parent.glob("*.json") if _OWN.fullmatch(each.name))
    return {key: outcomes for each in files for key, outcomes in _read(each).items()}


def _read(file: Path) -> dict[str, Outcomes]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {key: outcomes for key, outcomes in data.items() if _valid(outcomes)}


def _valid(outcomes: object) -> bool:
    return isinstance(outcomes, dict) and all(outcome in _WORST for outcome in outcomes.values())


def _write(file: Path, outcomes: Mapping[str, Outcomes]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(outcomes) + "\n")
        own = [each for each in file.parent.iterdir() if _OWN.fullmatch(each.name)]
        for old in sorted(own, key=lambda each: each.stat().st_mtime, reverse=True)[_KEPT:]:
            old.unlink(missing_ok=True)
    except (FileError, OSError):
        return  # the cache is optional


def _main() -> None:
    registry = default_registry()
    output = os.dup(1)
    os.dup2(2, 1)  # what libraries print is not part of the answer
    for line in sys.stdin:
        kind, name = json.loads(line)
        outcomes = outcomes_of(registry, kind, name, _expected(kind, name))
        os.write(output, (json.dumps(outcomes) + "\n").encode())


if __name__ == "__main__":
    _main()
