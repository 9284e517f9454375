"""Refusal of specs with settings that a template does not write, so that none is ignored."""

from __future__ import annotations

from collections.abc import Collection
from types import FunctionType
from typing import Any

from pydantic import ValidationError

from gptkit.core.component import Component
from gptkit.core.errors import GptkitError
from gptkit.core.spec import shortened
from gptkit.kinds.context import BuildContext

__all__ = ["NotWrittenError", "refuse_inherited", "refuse_other_fields"]

_HARMLESS = ("resolved", "problems", "inner_context", "wiring")
"""Methods that do not change what the module computes for a resolved spec."""
_METHODS = (FunctionType, classmethod, staticmethod, property)


class NotWrittenError(GptkitError):
    """A component, or one of its options, cannot be written out."""


def refuse_other_fields(spec: Component, fields: Collection[str], context: BuildContext) -> None:
    """Raise if a field that a template does not write has another value than its default.

    Args:
        spec: the resolved component.
        fields: the fields that the template writes.
        context: the build context of the component, on which defaults may depend.

    Raises:
        NotWrittenError: names the field.
        GptkitError: the template names a field that the component does not have.
    """
    known = type(spec).model_fields
    wrong = sorted(set(fields) - set(known))
    if wrong:
        raise GptkitError(f"{spec.kind} {spec.name!r}: written names fields that it does not have: {', '.join(wrong)}")
    for name in known:
        if name == "name" or name in fields:
            continue
        default = _with_default(spec, name, context)
        value = getattr(spec, name)
        if default is None or getattr(default, name) != value:
            remedy = "Choose another component"
            if default is not None:
                remedy = f"Remove {name} (its default is {_shown(getattr(default, name))}), or choose another component"
            raise NotWrittenError(
                f"{spec.kind} {spec.name!r} cannot be written out with {name}: {_shown(value)}; its template does not have "
                f"the field {name!r}",
                hint=f"{remedy}. Its author can add the field to the template (docs/eject.md).",
            )


def refuse_inherited(spec: Component, method: str) -> None:
    """Raise if a component inherits its template, but defines methods of its own: the template may not be right for these.

    Raises:
        NotWrittenError: names both classes.
    """
    above: list[tuple[type, str]] = []
    for cls in type(spec).__mro__:
        if method in vars(cls):
            break
        above += [(cls, name) for name, value in vars(cls).items() if isinstance(value, _METHODS) and _matters(name)]
    else:
        return
    if not above or (issubclass(cls, Component) and cls.is_kind()):
        return
    own, name = above[0]
    raise NotWrittenError(
        f"{spec.kind} {spec.name!r} cannot be written out: {own.__name__} defines its own {name!r}, but its template is "
        f"that of {cls.__name__}",
        hint=f"Choose another component. Its author can define {method!r} in {own.__name__} (docs/eject.md).",
    )


def _matters(name: str) -> bool:
    return not name.startswith(("_", "written", "model_")) and name not in _HARMLESS


def _with_default(spec: Component, name: str, context: BuildContext) -> Component | None:
    """Return the spec with the default of one field; None if this is not valid."""
    others = {field: getattr(spec, field) for field in type(spec).model_fields if field != name}
    try:
        changed = type(spec).model_validate(others, context={"registry": context.registry} if context.registry else None)
        resolved: Component = changed.resolved(context)
    except (ValidationError, GptkitError):
        return None
    return resolved


def _shown(value: Any) -> str:
    return shortened(value.name if isinstance(value, Component) else str(value), 60)
