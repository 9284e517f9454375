"""mkdocs hook that adds the generated pages and their navigation."""

from __future__ import annotations

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from gptkit.core.registry import default_registry
from gptkit.docs import conformance, contracts, models
from gptkit.docs.pages import navigation, pages
from gptkit.docs.places import DIRECTORY


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Insert the navigation of the components at its entry in mkdocs.yml."""
    generated = navigation(default_registry())
    config.nav = [_filled(entry, generated) for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    from gptkit.runs.spec import ExperimentSpec

    for path, text in pages(default_registry(), root=ExperimentSpec).items():
        files.append(File.generated(config, path, content=text))
    for module in (conformance, contracts, models):
        files.append(File.generated(config, module.PAGE, content=module.page(default_registry())))
    return files


def _filled(entry: Any, generated: list[Any]) -> Any:
    if isinstance(entry, dict):
        return {title: generated if target == f"{DIRECTORY}/index.md" else target for title, target in entry.items()}
    return entry
