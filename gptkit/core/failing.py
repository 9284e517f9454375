"""What is said where a component's own code raises while a spec is checked: whose code it was, and where it stood."""

from __future__ import annotations

import traceback

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from gptkit.core.errors import GptkitError
from gptkit.core.registry import default_registry
from gptkit.core.spec import Component

__all__ = ["MEANT", "failure"]

MEANT = (GptkitError, ValidationError, PydanticCustomError)
"""What components raise on purpose: it says by itself what is wrong."""


def failure(spec: Component, method: str, error: Exception) -> str:
    """``position 'xpos' of gptkit-xpos==0.1 failed in max_positions: TypeError: … (gptkit_xpos.py:12)``.

    Args:
        spec: the component that was asked; one further inside, whose code it called, is named instead.
        method: what it was asked for.
        error: what came of it.
    """
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        inner = frame.f_locals.get("self")
        if isinstance(inner, Component):
            spec, method = inner, frame.f_code.co_name
            place = f" ({frame.f_code.co_filename}:{line})"
    said = " ".join("".join(traceback.format_exception_only(error)).split())
    return f"{spec.kind} {spec.name!r}{_brought_by(spec)} failed in {method}: {said}{place}"


def _brought_by(spec: Component) -> str:
    try:
        entry = default_registry().entry(spec.kind, spec.name)
    except GptkitError:  # it was given as an object, and is not registered
        return ""
    return f" of {entry.plugin.provenance}" if entry.cls is type(spec) else ""
