"""Digests of sources, which say whether something that was measured earlier is still current."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from gptkit.core.component import Component
from gptkit.core.registry import Registry

__all__ = ["own_sources", "package_sources"]

_IMPORT = re.compile(r"^[ \t]*(?:from|import) ([\w.]+)", re.MULTILINE)
_BESIDE = ("modules", "written")
"""Packages beside the module of a spec with a file of the same name: its module, and its form in `gptkit eject`."""
_DIGITS = 16


@cache
def package_sources(package: str) -> str:
    """Return a digest of all source files of a package or module."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return _digest([])
    roots = [Path(place) for place in spec.submodule_search_locations or ()]
    files = [file for root in roots for file in sorted(root.rglob("*.py"))]
    return _digest(files or [Path(spec.origin or "")])


def own_sources(cls: type[Component], registry: Registry) -> str:
    """Return a digest of a component's own sources and of its kind's contract.

    The sources are the module of its spec, the files of the same name beside it, and what these import from the package of
    the spec's module. What components of all kinds use, such as the model, is not included.
    """
    package, _, name = cls.__module__.rpartition(".")
    contract = registry.kinds()[cls.kind].cls.__module__
    modules: dict[str, Path] = {}
    waiting = [cls.__module__, *(f"{package}.{each}.{name}" for each in _BESIDE)]
    while waiting:
        module = waiting.pop()
        file = _file(module)
        if file is not None and module not in modules:
            modules[module] = file
            waiting += [each for each in _imports(file) if each.startswith(f"{package}.")]
    kind = _file(contract)
    return _digest([*([] if kind is None else [kind]), *(modules[module] for module in sorted(modules))])


@cache
def _file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin)


@cache
def _imports(file: Path) -> tuple[str, ...]:
    return tuple(_IMPORT.findall(file.read_text(encoding="utf-8", errors="replace"))) if file.suffix == ".py" else ()


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:_DIGITS]
