"""Paths as users write them, and the cache directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gptkit.core.errors import FileError

__all__ = ["cache_directory", "cut_name", "expand_home", "is_own", "real", "require_utf8"]

_LONGEST_NAME = 200
"""Bytes; most file systems permit 255."""


def cache_directory() -> Path:
    """Return the directory of what gptkit can compute again: ``GPTKIT_CACHE``, else the user's cache on this platform."""
    chosen = os.environ.get("GPTKIT_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gptkit"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "gptkit" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gptkit"


def cut_name(name: str) -> str:
    """Return a name cut to what a file system permits for a file, with room for a suffix."""
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore")


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


def is_own(path: Path) -> bool:
    """Return whether a path is the user's, and nobody else may write to it, so that code in it can be executed."""
    if not hasattr(os, "getuid"):
        return True
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


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
