"""`gptkit components`: what a spec can choose from."""

from __future__ import annotations

import inspect
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptkit.cli import console
from gptkit.cli.options import complete_kinds, complete_names
from gptkit.core.errors import GptkitError

if TYPE_CHECKING:
    from gptkit.core.registry import Registry
    from gptkit.reflect.describe import ComponentDoc, FieldDoc


def components(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="A kind, such as position.", autocompletion=complete_kinds, show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A component of it.", autocompletion=complete_names, show_default=False),
    ] = None,
    contract: Annotated[
        bool, typer.Option("--contract", help="What a component of the kind must do: for whoever writes one.")
    ] = False,
) -> None:
    """Show what a spec can choose from: all kinds, the components of one, or one component.

    For example: gptkit components position rotary, gptkit components position --contract.
    """
    from gptkit.core.registry import default_registry

    registry = default_registry()
    if kind is not None and name is None and kind not in registry.kinds():
        _refuse_name(registry, kind)
    if contract:
        if kind is None or name is not None:
            raise GptkitError("a contract is a kind's", hint="Write it so: gptkit components KIND --contract.")
        _contract(registry, kind)
    elif kind is None:
        _kinds(registry)
    elif name is None:
        _kind(registry, kind)
    else:
        _component(registry, kind, name)


def _refuse_name(registry: Registry, name: str) -> None:
    """Raise where a component's name stands in a kind's place."""
    kinds = [kind for kind in registry.kinds() if name in registry.names(kind)]
    if kinds:
        commands = ", ".join(f"gptkit components {kind} {name}" for kind in kinds)
        found = " and ".join(f"{_article(kind)} {kind}" for kind in kinds)
        raise GptkitError(f"{name} is {found}, and no kind", hint=f"Show it: {commands}.")


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _kinds(registry: Registry) -> None:
    rows = [[kind, ", ".join(registry.names(kind))] for kind in registry.kinds()]
    console.stdout().print(console.table([("kind", {"style": "cyan", "no_wrap": True}), "components"], rows))
    console.note("\nmore on one: gptkit components KIND, gptkit components KIND NAME", style="dim")


def _kind(registry: Registry, kind: str) -> None:
    from gptkit.reflect.docstring import parse

    entries = registry.entries(kind)
    console.out(parse(registry.kinds()[kind].cls.__doc__).summary)
    console.out()
    foreign = any(not entry.plugin.built_in for entry in entries.values())
    rows = []
    for name, entry in entries.items():
        row = [name, parse(entry.cls.__doc__).summary]
        rows.append([*row, entry.plugin.provenance] if foreign else row)
    columns: list[console.Column] = [("name", {"style": "cyan", "no_wrap": True}), "what it does"]
    if foreign:
        columns.append("brought by")
    console.stdout().print(console.table(columns, rows))


def _contract(registry: Registry, kind: str) -> None:
    """The kind's docstring, what a component writes, and the class of what it builds."""
    from gptkit.reflect.contract import own_doc, runtime_classes

    registry.entries(kind)  # raises where there is no such kind
    entry = registry.kinds()[kind]
    console.stdout().print(kind, style="bold")
    console.out(inspect.cleandoc(own_doc(entry.cls)))
    console.heading(f"Writing one: a subclass of {entry.cls.__module__}.{entry.cls.__qualname__}")
    _members(entry.cls)
    for runtime in runtime_classes(entry.cls):
        console.heading(f"What it builds: {runtime.__module__}.{runtime.__qualname__}")
        console.out(textwrap.indent(inspect.cleandoc(own_doc(runtime)), "  "))
        _members(runtime)
    console.note(f"\na plugin to start from: gptkit plugin new NAME --kind {kind}", style="dim")


def _members(cls: type[Any]) -> None:
    from rich.text import Text

    from gptkit.reflect.contract import members

    for member in members(cls):
        line = Text.assemble("  ", (member.head, "cyan"), ("  (to be written)" if member.must else "", "yellow"))
        console.out()
        console.stdout().print(line, soft_wrap=True)
        console.out(textwrap.indent(member.doc, " " * 6))


def _component(registry: Registry, kind: str, name: str) -> None:
    from gptkit.docs.places import Place, places
    from gptkit.reflect.describe import describe
    from gptkit.runs.spec import ExperimentSpec

    spots = places(ExperimentSpec, kind)
    place = spots[0] if spots else Place((kind,))
    doc = describe(registry.entry(kind, name), registry, path=place.path, listed=place.listed)
    console.stdout().print(f"{doc.kind} {doc.name}", style="bold")
    _text(doc.summary)
    if doc.body:
        console.out()
        _text(doc.body)
    for title, text in (("Formula", doc.formula), ("Shapes", doc.shapes), ("Notes", doc.notes)):
        if text:
            console.heading(title)
            console.out(textwrap.indent(text, "  "))
    if doc.fields:
        console.heading("Fields")
        _fields(doc.fields)
    console.heading("In a spec file")
    console.out(textwrap.indent(doc.snippet, "  "))
    console.heading("About")
    rows = [[title, text] for title, text in _facts(doc) if text]
    console.stdout().print(console.table([("", {"style": "dim"}), ("", {"overflow": "fold"})], rows, header=False))


def _facts(doc: ComponentDoc) -> list[tuple[str, str]]:
    return [
        ("  paper", " ".join(doc.paper.split())),
        ("  source", doc.file),
        ("  brought by", doc.provenance),
        ("  former names", ", ".join(doc.aliases)),
        ("  former fields", ", ".join(f"{old} is now {new}" for old, new in doc.renamed_fields.items())),
    ]


def _fields(fields: tuple[FieldDoc, ...]) -> None:
    """Each field on a line with its type and default, its meaning below: that reads well in any width."""
    from rich.padding import Padding
    from rich.text import Text

    for field in fields:
        default = ("required", "yellow") if field.default is None else (f"= {field.default}", "green")
        limits = f"  ({field.constraints})" if field.constraints else ""
        line = Text.assemble((field.name, "cyan"), f": {field.type} ", default, (limits, "dim"))
        console.stdout().print(Padding(line, (0, 0, 0, 2)))
        console.stdout().print(Padding(Text(field.description), (0, 0, 0, 6)))


def _text(text: str) -> None:
    """Prose, at the terminal's width; indented parts stay as they are."""
    for paragraph in text.split("\n\n"):
        indented = any(line.startswith(" ") for line in paragraph.splitlines())
        console.stdout().print(paragraph if indented else " ".join(paragraph.split()))
