"""Declarations of the fields that may change when a run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gptkit.core.diff import Difference, differences
from gptkit.core.spec import Spec
from gptkit.core.walk import Path

__all__ = ["CHANGEABLE", "Change", "Changeable", "Fixed", "refused_changes"]


@dataclass(frozen=True)
class Changeable:
    """Mark of a field that a resumed run may change, since the trained state does not depend on it."""


CHANGEABLE = Changeable()


@dataclass(frozen=True)
class Fixed:
    """Mark of a field that a resumed run must keep.

    Attributes:
        reason: what depends on the field, as a clause.
    """

    reason: str


@dataclass(frozen=True)
class Change:
    """Change that a resumed run may not make: the field's path, its old and new value, and the reason."""

    path: str
    old: Any
    new: Any
    reason: str


def refused_changes(old: Spec, new: Spec, path: Path = ()) -> list[Change]:
    """Return the differences between two specs in fields that are marked `Fixed`.

    A field is marked by `Annotated[int, CHANGEABLE]` or `Annotated[int, Fixed("…")]`. A field without a mark holds a spec
    whose fields are marked.
    """
    refused: list[Change] = []
    for name, field in type(old).model_fields.items():
        one, other = getattr(old, name), getattr(new, name)
        mark = next((item for item in field.metadata if isinstance(item, (Changeable, Fixed))), None)
        if isinstance(mark, Changeable):
            continue
        if mark is None:
            refused += refused_changes(one, other, (*path, name))
            continue
        values = old.model_dump(mode="json", include={name})[name], new.model_dump(mode="json", include={name})[name]
        refused += [_change(result, mark.reason) for result in differences(*values, (*path, name))]
    return refused


def _change(result: Difference, reason: str) -> Change:
    if isinstance(result.left, Mapping) and isinstance(result.right, Mapping):
        # Another component: differences of its fields are not listed.
        return Change(f"{result.dotted}.name", result.left["name"], result.right["name"], reason)
    return Change(result.dotted, result.left, result.right, reason)
