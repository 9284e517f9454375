"""Sections of a spec file: the nested mappings other than components, such as `training`, and their fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from gptkit.core.component import Component
from gptkit.core.spec import Spec
from gptkit.reflect.describe import FieldDoc, describe_fields

__all__ = ["ROOT", "Section", "sections"]

ROOT = "spec"
"""Name of the section of the top-level keys."""


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        name: path of its keys, `training.stages`; `ROOT` for the top level.
        cls: its spec class.
        listed: whether the section is a list of such mappings.
    """

    name: str
    cls: type[Spec]
    listed: bool = False

    @property
    def fields(self) -> tuple[FieldDoc, ...]:
        """The section's own fields, without those of nested sections."""
        return tuple(field for field in describe_fields(self.cls) if "." not in field.name)


def sections(root: type[Spec], name: str = ROOT) -> dict[str, Section]:
    """Return the sections of a spec class by name, outer ones first; the fields of components are none.

    Args:
        root: class of a whole file.
        name: name of the section of its top-level keys.
    """
    return {section.name: section for section in (Section(name, root), *_inside(root, ""))}


def _inside(cls: type[Spec], above: str) -> Iterator[Section]:
    for name, info in cls.model_fields.items():
        for inner, listed in _classes(info.annotation, listed=False):
            section = Section(f"{above}{name}", inner, listed)
            yield section
            yield from _inside(inner, f"{section.name}.")


def _classes(annotation: Any, *, listed: bool) -> Iterator[tuple[type[Spec], bool]]:
    """Yield the spec classes in an annotation except components, and whether each is inside a list."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        if not issubclass(annotation, Component):
            yield annotation, listed
        return
    origin = get_origin(annotation)
    many = isinstance(origin, type) and not issubclass(origin, Mapping) and issubclass(origin, (tuple, list))
    for argument in get_args(annotation):
        yield from _classes(argument, listed=listed or many)
