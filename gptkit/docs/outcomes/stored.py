"""The outcomes of the conformance checks of built-in components, which ``measured.json`` holds.

All checks together take minutes, so pages show what is stored where it is current: the component's own sources, the checks
of its kind, and the versions of the libraries that they compare with are those of the measurement. What is not current, and
components of plugins, are checked when the pages are made. A test checks all components again and compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gptkit.core.registry import Registry
from gptkit.docs.digests import own_sources
from gptkit.docs.stored_file import read_stored

__all__ = ["LIBRARIES", "STORED", "current", "library_versions", "stored_data"]

STORED = Path(__file__).with_name("measured.json")

LIBRARIES = ("torch", "transformers", "tiktoken", "tokenizers", "numpy", "onnx", "onnxruntime", "gguf")
"""Distributions that the checks compare with, or that what is checked requires."""

_MARKS = {"passed": "+", "skipped": ".", "expected": "x"}
"""The character of each outcome in the file. A component with another outcome is not stored."""
_OUTCOMES = {character: outcome for outcome, character in _MARKS.items()}

_LIBRARIES, _SOURCES, _CHECKS = "libraries", "sources", "outcomes"


def current(registry: Registry) -> dict[tuple[str, str], dict[str, str]]:
    """Return the stored outcomes that are current, by kind and name, then by check."""
    data = _stored()
    if data.get(_LIBRARIES) != library_versions():
        return {}
    result = {}
    for kind in registry.kinds():
        checks = _checks(registry, kind)
        if data.get(kind) != checks:
            continue
        for name, entry in registry.entries(kind).items():
            known: Any = data.get(f"{kind} {name}") if entry.plugin.built_in else None
            outcomes = _read(known, checks)
            if outcomes is not None and known[_SOURCES] == own_sources(entry.cls, registry):
                result[kind, name] = outcomes
    return result


def stored_data(registry: Registry, outcomes: Mapping[tuple[str, str], Mapping[str, str]]) -> dict[str, Any]:
    """Return the content of the stored file.

    Args:
        registry: the components.
        outcomes: those of all of them, by kind and name, then by check.
    """
    result: dict[str, Any] = {_LIBRARIES: library_versions()}
    for kind in registry.kinds():
        checks = _checks(registry, kind)
        entries = {name: entry for name, entry in registry.entries(kind).items() if entry.plugin.built_in}
        if entries:
            result[kind] = checks
        for name, entry in entries.items():
            own = outcomes[kind, name]
            if all(outcome in _MARKS for outcome in own.values()):
                marks = "".join(_MARKS.get(own.get(check, ""), " ") for check in checks)
                result[f"{kind} {name}"] = {_SOURCES: own_sources(entry.cls, registry), _CHECKS: marks}
    return result


def library_versions() -> dict[str, str]:
    """Return the public versions of the libraries that are installed."""
    result = {}
    for library in LIBRARIES:
        try:
            result[library] = version(library).partition("+")[0]
        except PackageNotFoundError:
            continue
    return result


def _checks(registry: Registry, kind: str) -> list[str]:
    from gptkit.testing import checks_for  # torch

    return [check.name for check in checks_for(kind, registry) if not check.slow]


def _read(known: Any, checks: list[str]) -> dict[str, str] | None:
    """Return the outcomes of a component; None if the entry is absent or damaged."""
    if not isinstance(known, Mapping) or not all(isinstance(known.get(key), str) for key in (_SOURCES, _CHECKS)):
        return None
    marks = known[_CHECKS]
    if len(marks) != len(checks) or not set(marks) <= {*_OUTCOMES, " "}:
        return None
    return {check: _OUTCOMES[mark] for check, mark in zip(checks, marks, strict=True) if mark != " "}


def _stored() -> Mapping[str, Any]:
    return read_stored(STORED)
