"""mkdocs hook that adds the generated pages and their navigation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from gptkit.core.registry import default_registry
from gptkit.docs.checked import Checking
from gptkit.docs.guide.figures import filled
from gptkit.docs.placeholders import is_placeholder
from gptkit.docs.site import filled_navigation, generated, with_outcomes

_checking: Checking | None = None

_NUMBER = re.compile(r"<td((?: style=\"[^\"]*\")?)>(?=[-−±+]?\d[\d.,]*(?:e[-+]?\d+)?(?: ?[\w/%²·]{1,9})?</td>)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Insert the navigation of the components at its entry in mkdocs.yml."""
    config.nav = filled_navigation(config.nav or [], default_registry())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and images in place of their placeholders, and start the conformance checks.

    Pages need their outcomes later.
    """
    global _checking
    on_shutdown()
    _checking = Checking(default_registry())
    for file in [each for each in files if each.abs_src_path and is_placeholder(Path(each.abs_src_path))]:
        files.remove(file)
    for path, text in generated(default_registry()).items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Draw the figures of the guided path, and add the outcomes of the conformance checks."""
    assert _checking is not None
    return with_outcomes(filled(markdown), default_registry(), _checking.outcomes)


def on_build_error(**_: Any) -> None:
    """End the conformance checks."""
    on_shutdown()


def on_shutdown() -> None:
    """End the conformance checks."""
    if _checking is not None:
        _checking.stop()


def on_page_content(html: str, **_: Any) -> str:
    """Mark the cells with a number and its unit, which are not to be broken."""
    return _NUMBER.sub(r'<td class="number"\1>', html)


def on_post_page(output: str, **_: Any) -> str:
    """Name the dialog of the search, as readers of the screen need it."""
    return output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )
