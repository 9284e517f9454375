"""The documentation site: its handwritten pages, and the pages that are generated from what is installed.

`generated` is a pure function of the registry and of the results in docs/effects, except for the outcomes of the conformance
checks, which other processes compute meanwhile and `with_outcomes` adds. mkdocs receives its files through `mkdocs_hook`;
`write_project` writes a project without the hook, for other builders.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.docs.checked import Checking, Outcomes
from gptkit.docs.guide.figures import filled
from gptkit.docs.placeholders import is_placeholder
from gptkit.docs.places import DIRECTORY

__all__ = ["filled_navigation", "generated", "source", "with_outcomes", "write_project"]

_ALL_OUTCOMES = "<!-- outcomes of all components -->"
_PACKAGE = Path(__file__).resolve().parent


def source() -> Path:
    """Return the directory with mkdocs.yml and docs/: a checkout, or the copy in an installed package.

    Raises:
        GptkitError: neither is available.
    """
    for directory in (_PACKAGE / "source", _PACKAGE.parents[1]):
        if (directory / "mkdocs.yml").is_file() and (directory / "docs" / "index.md").is_file():
            return directory
    raise GptkitError(
        "this installation of gptkit has no handwritten pages", hint="Install gptkit from a wheel or a checkout."
    )


def generated(registry: Registry) -> dict[str, str]:
    """Return all generated pages and images by path; `with_outcomes` completes them.

    The pages of components come last: a builder that follows this order needs the outcomes late.
    """
    from gptkit.docs import (
        command_line,
        conformance,
        contracts,
        effects,
        ejected,
        models,
        python_reference,
        spec_builder,
        spec_fields,
    )
    from gptkit.docs.pages import pages
    from gptkit.runs.spec import ExperimentSpec

    result: dict[str, str] = {}
    for module in (command_line, contracts, ejected, models, python_reference, spec_builder, spec_fields):
        result[module.PAGE] = module.page(registry)
    result |= effects.pages(source() / "docs") | models.assets(registry) | spec_builder.assets(registry)
    return result | pages(registry, root=ExperimentSpec, checks=True) | {conformance.PAGE: _ALL_OUTCOMES}


def with_outcomes(text: str, registry: Registry, outcomes: Callable[[], Mapping[tuple[str, str], Outcomes]]) -> str:
    """Return a generated page with the outcomes of the conformance checks.

    Args:
        text: the page as Markdown.
        registry: the components.
        outcomes: returns the outcomes by kind and name; called only for a page that shows some.
    """
    from gptkit.docs import component_checks, conformance

    if text.strip() == _ALL_OUTCOMES:
        return conformance.page(registry, outcomes=outcomes())
    return component_checks.filled(text, registry, outcomes)


def filled_navigation(nav: list[Any], registry: Registry) -> list[Any]:
    """Return the navigation of mkdocs.yml with the pages of the components at their entry."""
    from gptkit.docs.pages import navigation

    components = navigation(registry)

    def filled(entry: Any) -> Any:
        if not isinstance(entry, dict):
            return entry
        return {title: components if target == f"{DIRECTORY}/index.md" else target for title, target in entry.items()}

    return [filled(entry) for entry in nav]


def write_project(directory: Path, registry: Registry) -> None:
    """Write a complete mkdocs project, with the generated pages as files and without the hook, into an empty directory."""
    origin = source()
    shutil.copytree(origin / "docs", directory / "docs", dirs_exist_ok=True)
    for file in [path for path in (directory / "docs").rglob("*") if path.suffix in (".md", ".html")]:
        if is_placeholder(file):
            file.unlink()
    for page in (directory / "docs").rglob("*.md"):
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    checking = Checking(registry)
    try:
        for path, text in generated(registry).items():
            target = directory / "docs" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(with_outcomes(text, registry, checking.outcomes), encoding="utf-8")
    finally:
        checking.stop()
    configuration = (origin / "mkdocs.yml").read_text(encoding="utf-8")
    start, end = re.split(r"^nav:\n(?:[ #].*\n|\n)*", configuration, maxsplit=1, flags=re.MULTILINE)
    nav = YAML(typ="safe", pure=True).load(configuration)["nav"]
    with (directory / "mkdocs.yml").open("w", encoding="utf-8") as stream:
        stream.write(re.sub(r"^hooks:.*\n", "", start, flags=re.MULTILINE))
        YAML().dump({"nav": filled_navigation(nav, registry)}, stream)
        stream.write("\n" + end)
