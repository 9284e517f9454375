"""The mkdocs hook: hands the generated pages and their navigation to mkdocs, and does nothing else."""

from __future__ import annotations

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from gptkit.core.registry import default_registry
from gptkit.docs import conformance, models
from gptkit.docs.pages import navigation, pages
from gptkit.docs.places import FOLDER


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the navigation of the components in the place that mkdocs.yml keeps for it."""
    generated = navigation(default_registry())
    config.nav = [_filled(entry, generated) for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    from gptkit.runs.spec import ExperimentSpec

    for path, text in pages(default_registry(), root=ExperimentSpec).items():
        files.append(File.generated(config, path, content=text))
    for made in (conformance, models):
        files.append(File.generated(config, made.PAGE, content=made.page(default_registry())))
    return files


def _filled(entry: Any, generated: list[Any]) -> Any:
    if isinstance(entry, dict):
        return {title: generated if where == f"{FOLDER}/index.md" else where for title, where in entry.items()}
    return entry
