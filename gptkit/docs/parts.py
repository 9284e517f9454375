"""Parts of generated pages: headings, lists of fields, figures and formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from gptkit.core.component import Component
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.docs import formulas
from gptkit.docs.figures.drawing import figure
from gptkit.reflect import prose
from gptkit.reflect.describe import ComponentDoc, FieldDoc

__all__ = ["drawn", "evaluated", "field_list", "formula", "page_of", "thumbnail", "titled"]


def titled(title: str, body: str) -> str:
    """Return a heading and its body; empty without a body."""
    return f"{title}\n\n{body}" if body else ""


def page_of(*parts: str) -> str:
    """Return a page of the parts that are not empty."""
    return "\n\n".join(part for part in parts if part) + "\n"


def evaluated(cls: type[Component], registry: Registry, title: str, make: Callable[[], str]) -> str:
    """Return a part of a page for which a component is built and evaluated.

    Where that fails for a component of a plugin, a note says why: one plugin does not end the documentation of all others.

    Args:
        cls: the component.
        registry: the registry of the components around it.
        title: what the part shows, for the note.
        make: returns the part as Markdown.
    """
    try:
        return make()
    except Exception as error:
        plugin = registry.entry(cls.kind, cls.component_name()).plugin
        if plugin.built_in:
            raise
        reason = error.message if isinstance(error, GptkitError) else f"{type(error).__name__}: {error}"
        hint = error.hint if isinstance(error, GptkitError) else None
        note = f"{reason}. {hint or f'Run `gptkit plugin check {plugin.distribution}`.'}"
        return f'!!! warning "The {title} could not be computed"\n    {prose.inline(note)}'


def drawn(cls: type[Component], registry: Registry) -> str:
    """Return the figure of a component as HTML; empty for kinds without figures."""

    def make() -> str:
        made = figure(cls, registry)
        return "" if made is None else made.html()

    return evaluated(cls, registry, "figure", make)


def thumbnail(cls: type[Component], registry: Registry) -> str:
    """Return the small figure of a component as HTML; empty for kinds without figures, and where it cannot be drawn."""
    try:
        made = figure(cls, registry)
        return "" if made is None else made.thumbnail()
    except GptkitError:  # `figure` raises no other error
        if registry.entry(cls.kind, cls.component_name()).plugin.built_in:
            raise
        return ""  # the component's page says why


def formula(doc: ComponentDoc) -> str:
    """Return the typeset formula and what the docstring says about it; else the docstring's text."""
    if not doc.latex or not formulas.available():
        return prose.code(doc.formula) if doc.formula else ""
    typeset = formulas.typeset(doc.latex, f"{doc.kind} {doc.name}")
    if not doc.formula:
        return typeset
    exact = prose.code(doc.formula)
    inner = "\n".join(f"    {line}" if line else "" for line in exact.splitlines())
    return f'{typeset}\n\n??? note "With the names of the fields, and all options"\n\n{inner}'


def field_list(registry: Registry, fields: Iterable[FieldDoc], *, up: str = "../") -> str:
    """Return the fields as a definition list, which needs no sideways scrolling; required ones first.

    Args:
        registry: the kinds that have a page.
        fields: the fields.
        up: address of the directory of the kinds' pages, from the page.
    """
    given = list(fields)
    required = [field for field in given if field.required and "." not in field.name]
    others = [field for field in given if field not in required]
    groups = [("**Required**", required), ("**Optional**" if required else "", others)]
    return "\n\n".join(part for title, some in groups if some for part in [title, *_entries(registry, some, up)] if part)


def _entries(registry: Registry, fields: Iterable[FieldDoc], up: str) -> Iterator[str]:
    for field in fields:
        value = "; ".join(part for part in (_type(registry, field, up), prose.inline(field.constraints)) if part)
        default = "" if field.default is None else f" · default `{field.default}`"
        yield f"`{field.name}`\n:   {prose.inline(field.description)}<br>{value}{default}"


def _type(registry: Registry, field: FieldDoc, up: str) -> str:
    parts = []
    for part in field.type.split(" | "):
        lead, kind = ("list of ", part.removeprefix("list of ")) if part.startswith("list of ") else ("", part)
        known = kind in field.kinds and kind in registry.kinds()
        parts.append(f"{lead}[{kind}]({up}{kind}/index.md)" if known else f"`{part}`")
    return " or ".join(parts)
