"""Description of a component as data, for the documentation and ``gptkit components``."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gptkit.core.component import Component
from gptkit.core.registry import Entry, Registry
from gptkit.core.spec import Spec
from gptkit.reflect import docstring, snippets

__all__ = ["ComponentDoc", "FieldDoc", "describe", "describe_fields", "smallest"]

_BOUNDS = {"gt": "> {}", "ge": "≥ {}", "lt": "< {}", "le": "≤ {}", "multiple_of": "a multiple of {}"}
_LENGTHS = {"min_length": "at least {}", "max_length": "at most {}", "pattern": "matches {}"}


@dataclass(frozen=True)
class FieldDoc:
    """One field of a spec.

    Attributes:
        name: as written in a spec file; dotted for a field of a nested mapping (``scaling.factor``).
        type: as in a spec file: ``int | null``, ``list of str``, or the kind of the components.
        kinds: the kinds named in `type`.
        default: as written in a spec file; None if the field is required.
        constraints: ``≥ 1, < 10``, or empty.
        description: a sentence.
    """

    name: str
    type: str
    kinds: tuple[str, ...]
    default: str | None
    constraints: str
    description: str

    @property
    def required(self) -> bool:
        return self.default is None


@dataclass(frozen=True)
class ComponentDoc:
    """One component. Sections that its docstring lacks are empty.

    Attributes:
        snippet: the shortest form of the component in a spec file; empty if it is used by commands only.
        full_snippet: the form with all fields.
        commands: command lines that use the component.
        latex: the formula in LaTeX; empty if the component declares none.
        module: module of its source.
        provenance: the distribution that registers it, ``gptkit==0.1.0``.
    """

    kind: str
    name: str
    summary: str
    body: str
    formula: str
    shapes: str
    paper: str
    notes: str
    fields: tuple[FieldDoc, ...]
    snippet: str
    full_snippet: str
    module: str
    provenance: str
    aliases: tuple[str, ...]
    renamed_fields: Mapping[str, str]
    commands: tuple[str, ...] = ()
    latex: str = ""

    @property
    def file(self) -> str:
        """The source file, relative to its distribution's root: ``gptkit/components/norm/rms.py``."""
        return self.module.replace(".", "/") + ".py"


def describe(
    entry: Entry,
    registry: Registry,
    *,
    path: Sequence[str] | None = None,
    listed: bool = False,
    holder: Mapping[str, Any] | None = None,
    inside: str = "",
    beside: Mapping[str, Any] | None = None,
    commands: Sequence[str] = (),
) -> ComponentDoc:
    """Describe a component.

    Args:
        registry: registry of nested components.
        path: keys of the snippets, the kind's name by default; there are none without keys.
        listed: whether the value at `path` is a list.
        holder: the component at `path` that holds this one in its field `inside`; empty if this one is the value itself.
        inside: the field of the holder.
        beside: further keys beside the last one of `path`.
        commands: command lines with ``{name}``, for a component that spec files do not contain.
    """
    cls = entry.cls
    doc = docstring.parse(cls.__dict__.get("__doc__"))
    least = smallest(cls, registry)
    keys = (cls.kind,) if path is None else tuple(path)

    def snippet(value: Any) -> str:
        if commands or not keys:
            return ""
        shown = {**holder, inside: value} if holder else value
        return snippets.block(keys[:-1], {keys[-1]: [shown] if listed else shown, **(beside or {})})

    return ComponentDoc(
        kind=cls.kind,
        name=cls.component_name(),
        summary=doc.summary,
        body=doc.body,
        formula=doc.sections.get("Formula", ""),
        shapes=doc.sections.get("Shapes", ""),
        paper=doc.sections.get("Paper", ""),
        notes=doc.sections.get("Notes", ""),
        fields=tuple(describe_fields(cls)),
        snippet=snippet(least if len(least) > 1 else least["name"]),
        full_snippet=snippet(_everything(cls, least, registry)),
        module=cls.__module__,
        provenance=entry.plugin.provenance,
        aliases=tuple(cls.aliases),
        renamed_fields=dict(cls.renamed_fields),
        commands=tuple(command.format(name=cls.component_name()) for command in commands),
        latex=cls.__dict__.get("formula", ""),
    )


def describe_fields(cls: type[Spec]) -> Iterator[FieldDoc]:
    """Yield the fields of a spec except `name`; fields of a nested mapping follow the field that contains it."""
    for name, info in cls.model_fields.items():
        if name == "name" and issubclass(cls, Component):
            continue
        yield from _field(name, info, depth=0)


def smallest(cls: type[Component], registry: Registry) -> dict[str, Any]:
    """Return the fewest fields of a valid spec: the name, or else one of the component's examples.

    If no example is valid, required fields (such as a path) are shown as ``…``.
    """
    name = {"name": cls.component_name()}
    for fields in ({}, *cls.examples):
        try:
            cls.model_validate({**name, **fields}, context={"registry": registry})
        except ValidationError:
            continue
        return {**name, **snippets.plain(fields)}
    missing = [field for field, info in cls.model_fields.items() if info.is_required()]
    return {**name, **dict.fromkeys(missing, "…")}


def _everything(cls: type[Component], least: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    try:
        spec = cls.model_validate(dict(least), context={"registry": registry})
    except ValidationError:
        return dict(least)
    return {name: snippets.plain(getattr(spec, name)) for name in cls.model_fields}


def _field(name: str, info: FieldInfo, depth: int) -> Iterator[FieldDoc]:
    kind = _Type()
    text = kind.text(info.annotation)
    default = None
    if not info.is_required():
        default = snippets.flow(snippets.plain(info.get_default(call_default_factory=True)))
    bounds = [*_bounds(info.metadata, kind.measured)]
    yield FieldDoc(name, text, tuple(kind.kinds), default, ", ".join(bounds), " ".join((info.description or "").split()))
    if depth < 3:
        for spec in kind.specs:
            for inner, inner_info in spec.model_fields.items():
                yield from _field(f"{name}{'[]' if kind.listed else ''}.{inner}", inner_info, depth + 1)


def _bounds(metadata: Sequence[Any], measured: str) -> Iterator[str]:
    for item in metadata:
        for attribute, words in _BOUNDS.items():
            if (bound := getattr(item, attribute, None)) not in (None, PydanticUndefined):
                yield words.format(snippets.flow(bound))
        for attribute, words in _LENGTHS.items():
            if (bound := getattr(item, attribute, None)) not in (None, PydanticUndefined):
                unit = "" if attribute == "pattern" else f" {measured}" if bound == 1 else f" {measured}s"
                yield words.format(bound) + unit


class _Type:
    """Formatter of annotations, which records the kinds and specs that it encounters."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.specs: list[type[Spec]] = []
        self.listed = False
        self.measured = "character"

    def text(self, annotation: Any) -> str:
        origin, args = get_origin(annotation), get_args(annotation)
        if annotation is None or annotation is type(None):
            return "null"
        if origin is Annotated:
            bounds = ", ".join(_bounds(args[1:], "item"))
            return self.text(args[0]) + (f" ({bounds})" if bounds else "")
        if origin is Literal:
            return " | ".join(snippets.flow(value) for value in args)
        if origin in (Union, types.UnionType):
            return " | ".join(dict.fromkeys(self.text(item) for item in args))
        value = getattr(annotation, "__value__", None)
        if value is not None and not isinstance(annotation, type):
            return self.text(value)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return f"mapping of {self.text(args[0])} to {self.text(args[1])}"
        if isinstance(origin, type) and issubclass(origin, (Sequence, set, frozenset)):
            self.listed, self.measured = True, "item"
            items = [self.text(item) for item in args if item is not Ellipsis]
            return f"list of {', '.join(items)}" if len(items) < 2 else f"[{', '.join(items)}]"
        if isinstance(annotation, type):
            return self._class(annotation)
        return "anything"

    def _class(self, annotation: type[Any]) -> str:
        if issubclass(annotation, Component) and hasattr(annotation, "kind"):
            if annotation.is_kind():
                self.kinds.append(annotation.kind)
                return annotation.kind
            return annotation.component_name()
        if issubclass(annotation, Spec):
            self.specs.append(annotation)
            return "mapping"
        return "path" if annotation.__name__.endswith("Path") else annotation.__name__
