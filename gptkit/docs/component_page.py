"""The page of a component: a sentence, its figure, how it is written in a spec, formula, shapes, fields, and origin."""

from __future__ import annotations

from gptkit.core.registry import Registry
from gptkit.docs.parts import drawn, field_list, formula, page_of, titled
from gptkit.reflect import prose
from gptkit.reflect.describe import ComponentDoc

__all__ = ["component_page"]


def component_page(registry: Registry, doc: ComponentDoc, *, figures: bool = True) -> str:
    """Return the page of a component as Markdown.

    Args:
        registry: the registry of the components around it.
        doc: its description.
        figures: whether to draw its figure, for which it is built and evaluated.

    Raises:
        GptkitError: its figure cannot be drawn, or its formula is not valid.
    """
    cls = registry.component(doc.kind, doc.name)
    facts = [
        ("Paper", prose.paper(doc.paper)),
        ("Kind", f"[{doc.kind}](index.md)"),
        ("Provided by", f"`{doc.provenance}`"),
        ("Source", f"`{doc.file}`"),
        ("Former names", ", ".join(f"`{alias}`" for alias in doc.aliases)),
        ("Former fields", ", ".join(f"`{old}` is now `{new}`" for old, new in doc.renamed_fields.items())),
    ]
    return page_of(
        f"# {doc.name}",
        prose.inline(doc.summary),
        drawn(cls, registry) if figures else "",
        prose.code(doc.snippet, "yaml") if doc.snippet else "",
        prose.code("\n".join(doc.commands), "sh") if doc.commands else "",
        prose.prose(doc.body),
        titled("## Formula", formula(doc)),
        titled("## Shapes", prose.code(doc.shapes) if doc.shapes else ""),
        "## Fields",
        field_list(registry, doc.fields) or "None.",
        titled("With all fields:", prose.code(doc.full_snippet, "yaml") if doc.fields and doc.snippet else ""),
        titled("## Notes", prose.prose(doc.notes)),
        "## Origin",
        "\n".join(f"- {title}: {text}" for title, text in facts if text),
    )
