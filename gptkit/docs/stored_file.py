"""Reading of the stored files of measurements, which pages can do without."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["read_stored"]


def read_stored(file: Path) -> Mapping[str, Any]:
    """Return the content of a JSON file; an empty mapping if it is missing or damaged."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
