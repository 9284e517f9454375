"""Base directories of runs that were moved together with their specs and corpora."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptkit.core.commands import command
from gptkit.core.paths import real

__all__ = ["base_notes", "current_base", "moved_hint"]

BASE = "base"
FROM_RUN = "base_from_run"


def base_notes(base: Path, run: Path) -> dict[str, str]:
    """Return the entries of provenance.json for the base directory of a spec's relative paths.

    Args:
        base: the base directory.
        run: the run directory.

    Returns:
        The absolute path and, except between drives, the path from the run directory.
    """
    notes = {BASE: str(base)}
    with contextlib.suppress(ValueError):  # Windows: on another drive
        notes[FROM_RUN] = os.path.relpath(real(base), real(run))
    return notes


def current_base(notes: Mapping[str, Any], run: Path) -> str | None:
    """Return the base directory in a provenance, where it is now; None if there is none.

    If the directory does not exist, and one with the same path from the run directory does, the run was moved together
    with its spec: the second one is the base directory.
    """
    base, relative = notes.get(BASE), notes.get(FROM_RUN)
    if base is None or relative is None or Path(base).is_dir():
        return base
    moved = real(real(run) / relative)
    return str(moved) if moved.is_dir() else base


def moved_hint(run: Path) -> str:
    """Return what to do if the base directory of a run does not exist, and the corpus is not found."""
    return (
        "The directory of the run's spec does not exist any more. Continue the run with the spec file in its new directory: "
        f"{command('gptkit train --resume', 'SPEC', run)}"
    )
