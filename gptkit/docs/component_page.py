"""The page of a component: figure, use in a spec, formula, sizes, fields, what it combines with, checks, and source."""

from __future__ import annotations

from dataclasses import dataclass

from gptkit.core.registry import Registry
from gptkit.core.spec import Spec
from gptkit.docs.parts import drawn, evaluated, field_list, formula, page_of, titled
from gptkit.docs.source_code import sources
from gptkit.reflect import prose
from gptkit.reflect.describe import ComponentDoc

__all__ = ["Measurements", "component_page"]


@dataclass(frozen=True)
class Measurements:
    """What pages show besides descriptions, and for which components are built and evaluated.

    Attributes:
        figures: draw figures.
        sizes: measure sizes.
        relations: list what uses a component, for which the presets and the configurations of families are read.
        checks: leave room for the outcomes of the conformance checks (`component_checks.filled`).
    """

    figures: bool = True
    sizes: bool = True
    relations: bool = True
    checks: bool = False


NOTHING = Measurements(figures=False, sizes=False, relations=False)


def component_page(
    registry: Registry, doc: ComponentDoc, measured: Measurements = NOTHING, root: type[Spec] | None = None
) -> str:
    """Return the page of a component as Markdown.

    Args:
        registry: the registry of the components around it.
        doc: its description.
        measured: what is shown besides the description.
        root: class of a whole spec file.

    Raises:
        GptkitError: the figure, sizes or formula of a built-in component cannot be drawn, measured or typeset. The page of a
            plugin's component then has a note.
    """
    cls = registry.component(doc.kind, doc.name)
    facts = [
        ("Paper", prose.paper(doc.paper)),
        ("Kind", f"[{doc.kind}](index.md)"),
        ("Provided by", f"`{doc.provenance}`"),
        ("Source", f"[`{doc.file}`](#source)"),
        ("Former names", ", ".join(f"`{alias}`" for alias in doc.aliases)),
        ("Former fields", ", ".join(f"`{old}` is now `{new}`" for old, new in doc.renamed_fields.items())),
    ]
    return page_of(
        f"# {doc.name}",
        prose.inline(doc.summary),
        drawn(cls, registry) if measured.figures else "",
        prose.code(doc.snippet, "yaml") if doc.snippet else "",
        prose.code("\n".join(doc.commands), "sh") if doc.commands else "",
        prose.prose(doc.body),
        titled("## Formula", evaluated(cls, registry, "formula", lambda: formula(doc))),
        titled("## Shapes", prose.code(doc.shapes) if doc.shapes else ""),
        titled("## Sizes", _sizes(registry, doc) if measured.sizes else ""),
        "## Fields",
        field_list(registry, doc.fields) or "None.",
        titled("With all fields:", prose.code(doc.full_snippet, "yaml") if doc.fields and doc.snippet else ""),
        titled("## Notes", prose.prose(doc.notes)),
        titled("## Combinations", _combinations(registry, doc, measured)),
        titled("## Tensor names", _tensor_names(registry, doc) if measured.relations and doc.kind == "family" else ""),
        titled("## Use", _uses(registry, doc, root) if measured.relations else ""),
        titled("## Conformance", _checks(doc) if measured.checks else ""),
        "## Origin",
        "\n".join(f"- {title}: {text}" for title, text in facts if text),
        titled("## Source { data-search-exclude }", sources(cls)),
    )


def _sizes(registry: Registry, doc: ComponentDoc) -> str:
    from gptkit.docs.sizes.section import section  # imports torch

    cls = registry.component(doc.kind, doc.name)
    return evaluated(cls, registry, "sizes", lambda: section(cls, registry))


def _combinations(registry: Registry, doc: ComponentDoc, measured: Measurements) -> str:
    from gptkit.docs.combinations.tables import of_component

    cls = registry.component(doc.kind, doc.name)
    return evaluated(
        cls, registry, "combinations", lambda: of_component(registry, doc.kind, doc.name, measure=measured.sizes)
    )


def _tensor_names(registry: Registry, doc: ComponentDoc) -> str:
    from gptkit.docs.tensor_names import section

    return section(registry, doc.name)


def _uses(registry: Registry, doc: ComponentDoc, root: type[Spec] | None) -> str:
    from gptkit.docs.relations import uses

    return uses(registry, doc.kind, doc.name, root)


def _checks(doc: ComponentDoc) -> str:
    from gptkit.docs.component_checks import mark

    text = mark(doc.kind, doc.name)
    return f"{text}\n\nThe page [conformance checks](../../conformance.md#{doc.kind}) shows all components of the kind."
