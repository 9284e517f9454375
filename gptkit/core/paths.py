"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

from gptkit.core.errors import FileError

__all__ = ["expand_home", "real", "require_utf8"]


def expand_home(written: str, field: str) -> Path:
    """Return a path with a leading ``~`` or ``~user`` replaced by that user's home directory.

    Args:
        written: the path.
        field: the field that has it, for messages.

    Raises:
        FileError: the system has no such home directory.
    """
    try:
        return Path(written).expanduser()
    except RuntimeError:
        raise FileError(
            f"{field}: {written}: the system has no home directory for {Path(written).parts[0]}",
            hint="Give the whole path; a directory whose name begins with ~ is written ./~name.",
        ) from None


def real(path: Path) -> Path:
    """Return the absolute path without links. Unlike `Path.resolve` it does not fail on a cycle of links."""
    return Path(os.path.realpath(path))


def require_utf8(path: Path) -> None:
    """Raise if the path is not UTF-8, which libraries that open files by themselves report as damage.

    Raises:
        FileError: names the path.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise FileError(
            f"{os.fsencode(path)!r} is not UTF-8, and safetensors files are opened by UTF-8 names only",
            hint="Rename the file or directory.",
        ) from None
