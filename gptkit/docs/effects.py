"""Reports of the published effects: a page for each experiment whose results are in docs/effects."""

from __future__ import annotations

import json
from pathlib import Path

from gptkit.experiments.report import report_page

__all__ = ["pages"]


def pages(docs: Path) -> dict[str, str]:
    """Return the report of each experiment by path.

    Args:
        docs: the directory of the handwritten pages; ``effects/NAME.json`` in it is the data of a report.
    """
    files = sorted((docs / "effects").glob("*.json"))
    return {f"effects/{file.stem}.html": report_page(json.loads(file.read_text(encoding="utf-8"))) for file in files}
