"""Base directories of runs that were moved together with their specs and corpora."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gptkit.core.commands import command
from gptkit.core.errors import DataError
from gptkit.core.paths import real

__all__ = ["base_notes", "current_base", "naming_the_spec"]

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


@contextlib.contextmanager
def naming_the_spec(run: Path, missing: bool) -> Iterator[None]:
    """If the base directory of a run is missing, raise errors of its corpus with the command that names its spec."""
    try:
        yield
    except DataError as error:
        if not missing:
            raise
        hint = (
            "The directory of the run's spec does not exist any more. Continue the run with the spec file in its new "
            f"directory: {command('gptkit train --resume', 'SPEC', run)}"
        )
        raise DataError(error.message, hint=hint) from None
