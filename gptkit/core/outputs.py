"""Directories that gptkit writes, by their marks."""

from __future__ import annotations

from pathlib import Path

__all__ = ["EXPERIMENT", "RUN_HEAD", "TRIALS", "is_output"]

RUN_HEAD = "# Written by gptkit "
"""Beginning of a run's ``spec.yaml``."""

EXPERIMENT, TRIALS = "experiment.json", "trials"
"""Index of an experiment, and the directory of its runs."""


def is_output(directory: Path) -> bool:
    """Return whether a directory is a run or an experiment that gptkit wrote; False if that cannot be read.

    Their samples, metrics and reports do not belong to a corpus in whose directory they are.
    """
    try:
        if (directory / EXPERIMENT).is_file() and (directory / TRIALS).is_dir():
            return True
        if not (directory / "provenance.json").is_file():
            return False
        with (directory / "spec.yaml").open(encoding="utf-8", errors="replace") as file:
            return file.read(len(RUN_HEAD)) == RUN_HEAD
    except OSError:
        return False
