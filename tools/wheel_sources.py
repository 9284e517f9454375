"""Build hook of hatchling: a wheel contains the handwritten pages, for ``gptkit docs``."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "gptkit/docs/source"
"""Location in the wheel; `gptkit.docs.site.source` reads it."""


class HandwrittenPages(BuildHookInterface[Any]):
    """Adds docs/ and mkdocs.yml to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files, except to an editable wheel."""
        if version != "editable":
            build_data["force_include"] |= {"docs": f"{SOURCE}/docs", "mkdocs.yml": f"{SOURCE}/mkdocs.yml"}
