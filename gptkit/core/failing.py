"""Messages for exceptions in a component's code while a spec is checked, with the component, its plugin, and the line."""

from __future__ import annotations

import traceback
from collections.abc import Iterable

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from gptkit.core.component import Component
from gptkit.core.errors import GptkitError, Problem
from gptkit.core.registry import Registry, default_registry

__all__ = ["INTENTIONAL", "failure", "reported"]

INTENTIONAL = (GptkitError, ValidationError, PydanticCustomError)
"""Errors that components raise intentionally, with messages for the user."""


def failure(spec: Component, method: str, error: Exception, registry: Registry | None = None) -> str:
    """Return ``position 'xpos' of gptkit-xpos==0.1 failed in max_positions: TypeError: … (gptkit_xpos.py:12)``.

    Args:
        spec: the called component; if a nested component raised, that one is named instead.
        method: the called method.
        error: the exception.
        registry: the registry of the spec's components; by default the installed ones.
    """
    location = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        inner = frame.f_locals.get("self")
        # An unknown attribute of a spec is raised by pydantic, below the line that reads it.
        library = str(frame.f_globals.get("__name__", "")).partition(".")[0] == "pydantic"
        if isinstance(inner, Component) and not library:
            spec, method = inner, frame.f_code.co_name
            location = f" ({frame.f_code.co_filename}:{line})"
    summary = " ".join("".join(traceback.format_exception_only(error)).split())
    return f"{spec.kind} {spec.name!r}{_provider(spec, registry)} failed in {method}: {summary}{location}"


def reported(problems: Iterable[Problem]) -> list[Problem]:
    """Return what a component's method yields as problems.

    Raises:
        TypeError: it is something else, such as the message alone.
    """
    result = list(problems)
    for problem in result:
        if not isinstance(problem, Problem):
            raise TypeError(f"it yielded {problem!r}, not a Problem; write: yield Problem((), message)")
    return result


def _provider(spec: Component, registry: Registry | None) -> str:
    try:
        entry = (registry or default_registry()).entry(spec.kind, spec.name)
    except GptkitError:  # passed as an object, not registered
        return ""
    return f" of {entry.plugin.provenance}" if entry.cls is type(spec) else ""
