"""Check that a component's classes have no method whose name is almost that of a method of the contract."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from types import FunctionType
from typing import Any

from gptkit.testing.check import Checks, expect
from gptkit.testing.subject import Subject

__all__ = ["checks"]

checks = Checks()


@checks.add("known-methods", "A misspelled method overrides nothing: it is never called, and the inherited one runs.")
def known_methods(subject: Subject) -> None:
    for cls in _classes(type(subject.spec)):
        for name, meant in _misspelled(cls):
            used = name in _attributes(cls)
            expect(used, f"{cls.__qualname__}.{name} is called by nothing; did you mean to override {meant!r}?")


def _classes(spec: type) -> Iterator[type]:
    """Yield the class of a spec, and the runtime classes of its package that its methods name."""
    yield spec
    seen = {spec}
    for value in vars(spec).values():
        function = inspect.unwrap(_function(value)) if callable(_function(value)) else None
        if not isinstance(function, FunctionType):
            continue
        names = function.__code__.co_names
        # A function may import what it builds.
        imported = [vars(sys.modules[name]) for name in names if name in sys.modules]
        for name in names:
            for scope in (vars(spec), function.__globals__, *imported):
                each = scope.get(name)
                if isinstance(each, type) and each not in seen and _package(each) == _package(spec):
                    seen.add(each)
                    yield each


def _misspelled(cls: type) -> Iterator[tuple[str, str]]:
    """Yield the methods of a class that resemble one of gptkit's that it inherits and does not override."""
    known = {name for base in cls.__mro__[1:] for name in vars(base)}
    inherited = {name for base in cls.__mro__[1:] if _package(base) == "gptkit" for name in vars(base)}
    candidates = [name for name in sorted(inherited) if not name.startswith("_") and name not in vars(cls)]
    for name, value in vars(cls).items():
        if not name.startswith("_") and name not in known and isinstance(_function(value), FunctionType):
            close = get_close_matches(name, candidates, n=1, cutoff=0.85)
            if close:
                yield name, close[0]


def _function(value: Any) -> Any:
    return value.fget if isinstance(value, property) else getattr(value, "__func__", value)


def _attributes(cls: type) -> set[str]:
    """Return the names of the attributes that a class's module reads, none if it has no source."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
    except (OSError, TypeError, SyntaxError, KeyError):
        return set()
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def _package(cls: type) -> str:
    return cls.__module__.partition(".")[0]
