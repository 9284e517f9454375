"""Reports as files: JSON with a version, and HTML pages, which replace only what gptkit wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gptkit
from gptkit.core.atomic import reading, write_text
from gptkit.core.errors import GptkitError

__all__ = ["GENERATOR", "check_report", "json_report", "json_text", "write_report"]

GENERATOR = '<meta name="generator" content="gptkit'
"""Beginning of the tag by which a page is recognized as written by gptkit."""

_JSON_START = '{"gptkit": "'
_SUFFIXES = (".html", ".json")
_START = 400
"""Number of characters at the beginning of a file that contain the mark."""


def json_report(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report as plain data.

    Args:
        kind: what the report is about, as in ``trace``.
        data: its content.

    Returns:
        The content after ``gptkit`` (the kind), ``version`` (of the schema, 1) and ``written_by`` (gptkit's version).
    """
    return {"gptkit": kind, "version": 1, "written_by": gptkit.__version__, **data}


def json_text(report: Mapping[str, Any]) -> str:
    """Return the text of a JSON report; its first characters say that gptkit wrote it."""
    return json.dumps(report, ensure_ascii=False, allow_nan=False) + "\n"


def check_report(path: str | Path, suffixes: Sequence[str] = _SUFFIXES, mark: str = GENERATOR) -> Path:
    """Check that a report may be written to a path, before it is computed.

    Args:
        path: the file.
        suffixes: those that the file may have.
        mark: text at the beginning of files that gptkit wrote, which may be replaced.

    Raises:
        GptkitError: the suffix is not that of a report, the directory does not exist, or the file exists and was not
            written by gptkit.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in suffixes:
        kinds = " or ".join(suffixes)
        raise GptkitError(f"{path}: a report is written as {kinds}", hint=f"As in: {path.stem or 'report'}{suffixes[0]}")
    if path.is_dir():
        raise GptkitError(f"{path} is a directory", hint="Name a file.")
    if not path.parent.is_dir():
        raise GptkitError(f"the directory {path.parent} does not exist", hint="Create it, or choose another one.")
    if path.is_file() and path.stat().st_size and not _is_report(path, mark):
        raise GptkitError(f"{path} exists and was not written by gptkit", hint="Choose another name.")
    return path


def write_report(path: str | Path, *, html: Callable[[], str], data: Callable[[], Mapping[str, Any]]) -> Path:
    """Write a report as the page or the data, by the suffix of the path; return the path.

    Raises:
        GptkitError: as for `check_report`.
        FileError: the file cannot be written.
    """
    path = check_report(path)
    write_text(path, html() if path.suffix.lower() == ".html" else json_text(data()))
    return path


def _is_report(path: Path, mark: str) -> bool:
    with reading(path), path.open("rb") as stream:
        start = stream.read(_START).decode("utf-8", errors="replace")
    return mark in start or start.startswith(_JSON_START)
