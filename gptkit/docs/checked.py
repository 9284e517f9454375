"""Outcomes of the conformance checks of all installed components, for the page that shows them.

The checks take minutes: they run in one process for each core, and their outcomes are kept in the cache directory. The key
of an entry is a digest of the sources of gptkit and of the component's package, and of the versions of the libraries that
the checks compare with: a component is checked again when one of these changes.

``python -m gptkit.docs.checked`` is such a process: it reads the names of components from standard input, and writes their
outcomes to standard output.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gptkit.core.atomic import write_text
from gptkit.core.errors import FileError, GptkitError
from gptkit.core.paths import cache_directory
from gptkit.core.registry import Registry, default_registry

__all__ = ["Outcomes", "checked", "outcomes_of"]

Outcomes = dict[str, str]
"""The outcome of each check by its name; the worst one, where the instances of a component differ."""

_WORST = ("failed", "unexpected", "expected", "passed", "skipped")
_LIBRARIES = ("torch", "transformers", "tiktoken", "tokenizers", "numpy", "pydantic")
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


def checked(registry: Registry, kinds: Collection[str] | None = None) -> dict[tuple[str, str], Outcomes]:
    """Return the outcomes of components by kind and name: from the cache, or computed by several processes.

    Args:
        registry: the components. Another one than that of what is installed is checked in this process.
        kinds: the kinds to check; all by default.

    Raises:
        GptkitError: a process ended with an error.
    """
    every = [(kind, name) for kind in registry.kinds() for name in registry.names(kind)]
    names = every if kinds is None else [each for each in every if each[0] in kinds]
    if registry is not default_registry():
        return {(kind, name): outcomes_of(registry, kind, name, _expected(kind, name)) for kind, name in names}
    keys = {(kind, name): _key(registry, kind, name) for kind, name in every}
    file = _file()
    known = {} if file is None else _read(file)
    missing = [each for each in names if keys[each] not in known]
    for each, outcomes in _computed(missing).items():
        known[keys[each]] = outcomes
    if missing and file is not None:
        _write(file, {key: known[key] for key in keys.values() if key in known})
    return {each: known[keys[each]] for each in names}


def _expected(kind: str, name: str) -> Mapping[str, str]:
    from gptkit.testing import KNOWN_FAILURES

    return KNOWN_FAILURES.get(f"{kind} {name}", {})


def _computed(names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Outcomes]:
    """Check components in one process for each core.

    Raises:
        GptkitError: a process ended with an error.
    """
    if not names:
        return {}
    count = min(len(names), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    # Every process computes on one core; components of a kind take similarly long, so each process takes every nth.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        for _ in range(count)
    ]
    result: dict[tuple[str, str], Outcomes] = {}
    try:
        for index, process in enumerate(processes):
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as stream:  # its status says why
                stream.write(json.dumps(names[index::count]))
        for process in processes:
            assert process.stdout is not None
            text = process.stdout.read()
            if process.wait():
                raise GptkitError(
                    f"the conformance checks ended with status {process.returncode}",
                    hint="Run them with pytest: gptkit.testing.component_tests.",
                )
            result.update({(kind, name): outcomes for kind, name, outcomes in json.loads(text.splitlines()[-1])})
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return result


def _key(registry: Registry, kind: str, name: str) -> str:
    entry = registry.entries(kind)[name]
    package = entry.cls.__module__.partition(".")[0]
    parts = [kind, name, sys.version, _sources("gptkit"), _sources(package), *(_version(library) for library in _LIBRARIES)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@cache
def _sources(package: str) -> str:
    """Return a digest of the source files of a package or module."""
    spec = importlib.util.find_spec(package)
    digest = hashlib.sha256()
    if spec is not None:
        roots = [Path(place) for place in spec.submodule_search_locations or ()]
        files = [file for root in roots for file in sorted(root.rglob("*.py"))]
        for file in files or [Path(spec.origin or "")]:
            if file.is_file():
                digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()


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
    names = json.load(sys.stdin)
    registry = default_registry()
    output = os.dup(1)
    os.dup2(2, 1)  # what libraries print is not part of the answer
    outcomes = [(kind, name, outcomes_of(registry, kind, name, _expected(kind, name))) for kind, name in names]
    os.write(output, (json.dumps(outcomes) + "\n").encode())


if __name__ == "__main__":
    _main()
