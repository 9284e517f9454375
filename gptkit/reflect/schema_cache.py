"""Cache of the JSON Schema text, which takes longer to build than everything else in `gptkit new`.

Building the schema imports every component. Its text depends on the installed components and on the source files that
Python executed to build it. The name of an entry is a digest of what decides which components these are: Python, gptkit's
version, the import path, the installed distributions, and the registry's plugins, with those that GPTKIT_DISABLE excludes.
The entry records the size and times of every imported module's file, and is valid while all of them are unchanged. A plugin
that is installed, upgraded, edited in place or disabled therefore leads to another schema.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gptkit
from gptkit.core.atomic import write_text
from gptkit.core.errors import FileError
from gptkit.core.paths import cache_directory
from gptkit.core.registry import Registry

__all__ = ["WRITTEN_BY", "cached_schema"]

WRITTEN_BY = "Written by gptkit: a file with this comment is replaced when the schema is written again."
"""Comment of the schema, which marks a file as one that may be replaced."""

_KEPT = 8
"""Number of entries that are kept, 0.3 MB each; those written longest ago are removed."""

_SETTLED = 5.0
"""Seconds since the last change of a source file, before which no entry is written: the file may have changed after its
import, which takes less time than this."""

_ENTRY = re.compile(r"[0-9a-f]{32}\.json")
"""Names that this module gives to files. Nothing with another name is removed."""


def cached_schema(registry: Registry, make: Callable[[], str]) -> str:
    """Return the text that `make` returns, from the cache if it has a valid entry.

    The cache is optional: a directory that cannot be read or written, or a damaged entry, only costs the time of `make`.
    Nothing is cached if a plugin or component is unavailable, since what it lacks may appear without any change here.

    Args:
        registry: the components of the schema.
        make: builds the schema's text from the registry.
    """
    file = _file(registry)
    text = None if file is None else _read(file)
    if text is None:
        text = make()
        if file is not None and _complete(registry):
            _write(file, text)
    return text


def _file(registry: Registry) -> Path | None:
    """Return the file of the registry's entry; None if it cannot be cached."""
    if not _complete(registry):
        return None
    plugins = [
        (each.name, each.distribution, each.version, each.module, each.status, each.kinds, each.components)
        for each in registry.plugins()
    ]
    state = (gptkit.__version__, sys.version, sys.path, _distributions(), plugins)
    key = hashlib.sha256(json.dumps(state).encode(errors="surrogatepass")).hexdigest()[:32]
    try:
        return cache_directory() / "schema" / f"{key}.json"
    except RuntimeError:  # the user has no home directory
        return None


def _complete(registry: Registry) -> bool:
    return all(plugin.status != "broken" and not plugin.unusable for plugin in registry.plugins())


def _distributions() -> list[str]:
    """Return the metadata directories of the installed distributions, whose names contain the versions."""
    names: list[str] = []
    for directory in sys.path:
        with contextlib.suppress(OSError), os.scandir(directory or ".") as entries:
            names += (entry.name for entry in entries if entry.name.endswith((".dist-info", ".egg-info")))
    return sorted(names)


def _read(file: Path) -> str | None:
    """Return the text of a valid entry, else None."""
    try:
        entry = json.loads(file.read_bytes())
        text, digest, files = entry["text"], entry["sha256"], entry["files"]
        if _digest(text) != digest or any(_state(path) != state for path, state in files.items()):
            return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return str(text)


def _write(file: Path, text: str) -> None:
    """Write an entry, unless a source file has changed too recently, and remove the oldest entries."""
    sources = {getattr(module, "__file__", None) for module in list(sys.modules.values())} - {None}
    try:
        files = {str(path): _state(str(path)) for path in sources}
        newest = max(state[1] for state in files.values() if state) / 1e9
        if newest > time.time() - _SETTLED:
            return
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_text(file, json.dumps({"sha256": _digest(text), "files": files, "text": text}))
        entries = [path for path in file.parent.iterdir() if _ENTRY.fullmatch(path.name)]
        for path in sorted(entries, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            path.unlink(missing_ok=True)
    except (OSError, FileError):
        return


def _state(path: str) -> list[int] | None:
    """Return the size and times of a module's file; None if it does not exist, since some modules have invented names."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _digest(text: Any) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
