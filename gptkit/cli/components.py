"""`gptkit components`: list the registered components."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from gptkit.cli import console
from gptkit.cli.options import complete_kinds, complete_names
from gptkit.core.errors import GptkitError, UnknownComponentError
from gptkit.core.suggestions import did_you_mean

if TYPE_CHECKING:
    from gptkit.core.registry import Registry
    from gptkit.reflect.contract import ContractClass
    from gptkit.reflect.describe import ComponentDoc, FieldDoc
    from gptkit.reflect.sections import Section


def components(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="A kind, such as position, or a section of spec files.",
            autocompletion=complete_kinds,
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A component of that kind.", autocompletion=complete_names, show_default=False),
    ] = None,
    contract: Annotated[bool, typer.Option("--contract", help="Show the contract of the kind, for plugin authors.")] = False,
) -> None:
    """List all kinds, the components of a kind, or describe one component.

    A section of spec files in place of a kind prints its fields: gptkit components training.

    For example: gptkit components position rotary
    gptkit components position --contract
    """
    from gptkit.core.registry import default_registry

    registry = default_registry()
    if kind is not None and name is None and kind not in registry.kinds():
        if not contract and (section := _sections().get(kind)) is not None:
            _section(section)
            return
        _refuse_name(registry, kind)
    if contract:
        if kind is None or name is not None:
            raise GptkitError("--contract requires a kind and no name", hint="Use: gptkit components KIND --contract.")
        _contract(registry, kind)
    elif kind is None:
        _kinds(registry)
    elif name is None:
        _kind(registry, kind)
    else:
        _component(registry, kind, name)


def _sections() -> dict[str, Section]:
    from gptkit.reflect.sections import sections
    from gptkit.runs.spec import ExperimentSpec

    return sections(ExperimentSpec)


def _section(section: Section) -> None:
    """Print the fields of a section of spec files."""
    from gptkit.reflect.docstring import parse
    from gptkit.reflect.sections import ROOT

    title = "top-level keys of a spec file" if section.name == ROOT else section.name
    console.stdout().print(f"{title}{', a list' if section.listed else ''}", style="bold")
    _text(parse(section.cls.__doc__).summary)
    console.heading("Fields")
    _fields(section.fields)
    above = "" if section.name == ROOT else section.name
    inner = [name for name in _sections() if name.rpartition(".")[0] == above and name != ROOT]
    if inner:
        console.note(f"\nfor nested fields: gptkit components {' | '.join(inner)}", style="dim")


def _refuse_name(registry: Registry, name: str) -> None:
    """Raise the error for a name that is not a kind."""
    from gptkit.core.spec import shortened

    kinds = [kind for kind in registry.kinds() if name in registry.names(kind)]
    if kinds:
        commands = ", ".join(f"gptkit components {kind} {name}" for kind in kinds)
        owners = " and ".join(f"{_article(kind)} {kind}" for kind in kinds)
        raise GptkitError(f"{name} is {owners}, not a kind", hint=f"Use: {commands}.")
    if name in _sections():
        raise GptkitError(
            f"{name} is a section of spec files, which has no contract", hint=f"Its fields: gptkit components {name}."
        )
    raise UnknownComponentError(
        f"unknown kind {shortened(name)!r}; {did_you_mean(name, [*registry.kinds(), *_sections()])}",
        hint="Sections of spec files: " + ", ".join(_sections()) + ".",
    )


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _kinds(registry: Registry) -> None:
    rows = [[kind, ", ".join(registry.names(kind))] for kind in registry.kinds()]
    console.stdout().print(console.table([("kind", {"style": "cyan", "no_wrap": True}), "components"], rows))
    console.note("\nfor details: gptkit components KIND, gptkit components KIND NAME", style="dim")
    # The names of all sections would require the classes of whole spec files.
    console.note("for the fields of spec files and their sections: gptkit components spec", style="dim")


def _kind(registry: Registry, kind: str) -> None:
    from gptkit.reflect.docstring import parse

    entries = registry.entries(kind)
    console.out(parse(registry.kinds()[kind].cls.__doc__).summary)
    console.out()
    has_plugins = any(not entry.plugin.built_in for entry in entries.values())
    rows = []
    for name, entry in entries.items():
        row = [name, parse(entry.cls.__doc__).summary]
        rows.append([*row, entry.plugin.provenance] if has_plugins else row)
    columns: list[console.Column] = [("name", {"style": "cyan", "no_wrap": True}), "description"]
    if has_plugins:
        columns.append("provided by")
    console.stdout().print(console.table(columns, rows))


def _contract(registry: Registry, kind: str) -> None:
    """Print the kind's docstring, the members that a component defines, and the classes that these name."""
    from gptkit.reflect.contract import runtime_classes, spec_class

    registry.names(kind)  # raises for an unknown kind
    cls = registry.kinds()[kind].cls
    spec = spec_class(cls)
    console.stdout().print(kind, style="bold")
    console.out(spec.doc)
    console.heading(f"Spec class: a subclass of {spec.module}.{spec.name}")
    _members(spec)
    for runtime in runtime_classes(cls):
        console.heading(
            f"{'Runtime class' if cls.runtime.endswith(f':{runtime.name}') else 'Class'}: {runtime.module}.{runtime.name}"
        )
        console.out(textwrap.indent(runtime.doc, "  "))
        _members(runtime)
    console.note(f"\ncreate a plugin from a template: gptkit plugin new NAME --kind {kind}", style="dim")


def _members(cls: ContractClass) -> None:
    from rich.text import Text

    for member in cls.members:
        line = Text.assemble("  ", (member.head, "cyan"), ("  (required)" if member.must else "", "yellow"))
        console.out()
        console.stdout().print(line, soft_wrap=True)
        console.out(textwrap.indent(member.doc, " " * 6))


def _component(registry: Registry, kind: str, name: str) -> None:
    from gptkit.docs.usage import usage
    from gptkit.reflect.describe import describe
    from gptkit.runs.spec import ExperimentSpec

    entry = registry.entry(kind, name)
    doc = describe(entry, registry, **vars(usage(registry, kind, name, ExperimentSpec)))
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
    if doc.snippet:
        console.heading("In a spec file")
        console.out(textwrap.indent(doc.snippet, "  "))
    if doc.commands:
        console.heading("Commands")
        console.out(textwrap.indent("\n".join(doc.commands), "  "))
    console.heading("Origin")
    rows = [[title, text] for title, text in _facts(doc) if text]
    console.stdout().print(console.table([("", {"style": "dim"}), ("", {"overflow": "fold"})], rows, header=False))


def _facts(doc: ComponentDoc) -> list[tuple[str, str]]:
    return [
        ("  paper", " ".join(doc.paper.split())),
        ("  source", doc.file),
        ("  provided by", doc.provenance),
        ("  former names", ", ".join(doc.aliases)),
        ("  former fields", ", ".join(f"{old} is now {new}" for old, new in doc.renamed_fields.items())),
    ]


def _fields(fields: tuple[FieldDoc, ...]) -> None:
    """Print each field with type and default on one line, and its description below."""
    from rich.padding import Padding
    from rich.text import Text

    for field in fields:
        default = ("required", "yellow") if field.default is None else (f"= {field.default}", "green")
        limits = f"  ({field.constraints})" if field.constraints else ""
        line = Text.assemble((field.name, "cyan"), f": {field.type} ", default, (limits, "dim"))
        console.stdout().print(Padding(line, (0, 0, 0, 2)))
        console.stdout().print(Padding(Text(field.description), (0, 0, 0, 6)))


def _text(text: str) -> None:
    """Print prose wrapped to the terminal's width; indented paragraphs are printed unchanged."""
    for paragraph in text.split("\n\n"):
        indented = any(line.startswith(" ") for line in paragraph.splitlines())
        console.stdout().print(paragraph if indented else " ".join(paragraph.split()))
