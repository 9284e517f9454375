"""Documentation page of the fields of spec files that belong to no component: top-level keys, `model`, `training`."""

from __future__ import annotations

from gptkit.core.registry import Registry
from gptkit.docs.parts import field_list, page_of
from gptkit.docs.places import DIRECTORY
from gptkit.experiments.request import ComparisonSpec
from gptkit.experiments.search_spec import SearchSpec
from gptkit.reflect import prose
from gptkit.reflect.sections import ROOT, Section, sections
from gptkit.runs.spec import ExperimentSpec

__all__ = ["PAGE", "page"]

PAGE = "spec-fields.md"


def page(registry: Registry) -> str:
    """Return the page as Markdown: the fields of every section, from the spec classes themselves."""
    parts = [
        "# Fields of spec files",
        "The keys of a [spec file](spec-files.md) that belong to no component; those of a component are on "
        f"[its page]({DIRECTORY}/index.md). `gptkit components training` and `gptkit components training.stages` print the "
        f"same, `gptkit components {ROOT}` the top-level keys. `--set training.steps=200` sets a field by its path. Beside "
        "the top-level keys, `extends` names the [base spec](spec-files.md#overriding).",
    ]
    for section in sections(ExperimentSpec).values():
        title = "Top-level keys { #spec }" if section.name == ROOT else f"{section.name} {{ #{_anchor(section.name)} }}"
        parts.append(_section(section, f"{'##' if '.' not in section.name else '###'} {title}", registry))
    parts += [
        "## Files of experiments { #experiments }",
        "`gptkit compare FILE` reads an [experiment](experiments.md) from a file with these keys. "
        "The last section lists those of the `search` that an experiment's directory records.",
    ]
    for name, root in (("comparison", ComparisonSpec), ("search", SearchSpec)):
        parts += [_section(each, f"### {each.name} {{ #{_anchor(each.name)} }}", registry) for each in _of(root, name)]
    return page_of(*parts)


def _of(root: type[ComparisonSpec | SearchSpec], name: str) -> list[Section]:
    return [
        section if section.name == name else Section(f"{name}.{section.name}", section.cls, section.listed)
        for section in sections(root, name).values()
    ]


def _section(section: Section, title: str, registry: Registry) -> str:
    return page_of(
        title,
        "A list of mappings with these fields." if section.listed else "",
        prose.prose(section.cls.__doc__ or ""),
        field_list(registry, section.fields, up=f"{DIRECTORY}/"),
    )


def _anchor(name: str) -> str:
    return name.replace(".", "-")
