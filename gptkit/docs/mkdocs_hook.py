"""mkdocs hook that adds the generated pages and their navigation."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from gptkit.core.registry import default_registry
from gptkit.docs.guide.figures import filled
from gptkit.docs.site import filled_navigation, generated

_NUMBER = re.compile(r"<td((?: style=\"[^\"]*\")?)>(?=[-−±+]?\d[\d.,]*(?:e[-+]?\d+)?(?: ?[\w/%²·]{1,9})?</td>)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Insert the navigation of the components at its entry in mkdocs.yml."""
    config.nav = filled_navigation(config.nav or [], default_registry())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and images."""
    for path, text in generated(default_registry()).items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Draw the figures of the guided path."""
    return filled(markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Mark the cells with a number and its unit, which are not to be broken."""
    return _NUMBER.sub(r'<td class="number"\1>', html)


def on_post_page(output: str, **_: Any) -> str:
    """Name the dialog of the search, as readers of the screen need it."""
    return output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )
