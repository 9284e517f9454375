"""Directory of compiled decode steps, in the user's cache directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["Store", "cache_directory"]

_KEPT = 32
"""Number of compiled steps that are kept, a few MB each; those used longest ago are removed."""

_STALE = 3600.0
"""Seconds after which an unfinished compilation is taken to have been killed."""


def cache_directory() -> Path:
    """The directory for what gptkit can compute again: ``GPTKIT_CACHE``, or the platform's cache directory for the user."""
    chosen = os.environ.get("GPTKIT_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gptkit"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "gptkit" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gptkit"


class Store:
    """Compiled steps by key, shared by all processes of a user.

    An entry is a directory that appears whole, by one rename, and is never changed. The machine code in it is executed, so
    the directory is readable and writable for the user only, and one that belongs to another user is not read.

    Args:
        directory: ``decode`` in the cache directory by default.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = cache_directory() / "decode" if directory is None else directory

    def find(self, key: str) -> Path | None:
        """The entry's directory; None if there is none."""
        entry = self.directory / key
        if not (entry / "inputs.json").is_file() or not self._is_own(self.directory) or not self._is_own(entry):
            return None
        with contextlib.suppress(OSError):
            os.utime(entry)
        return entry

    def failure(self, key: str) -> str | None:
        """Why an earlier compilation of this key failed; None if it has not."""
        try:
            return (self.directory / f"{key}.failed").read_text(encoding="utf-8")
        except OSError:
            return None

    def fail(self, key: str, reason: str) -> None:
        """Store that the key cannot be compiled, and why."""
        with contextlib.suppress(OSError):
            (self.directory / f"{key}.failed").write_text(reason, encoding="utf-8")

    def begin(self, key: str) -> Path | None:
        """A new directory to compile in, on the same file system; None while another process compiles the key.

        Raises:
            OSError: the cache directory cannot be written, or belongs to another user.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._is_own(self.directory):
            raise PermissionError(f"{self.directory} belongs to another user, or others may write to it")
        lock = self.directory / f"{key}.lock"
        with contextlib.suppress(OSError):
            if time.time() - lock.stat().st_mtime > _STALE:
                lock.unlink()
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return None
        return Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".part", dir=self.directory))

    def finish(self, key: str, work: Path) -> Path | None:
        """Move a complete directory to its place, or remove what a failed compilation left; return the entry."""
        entry = self.directory / key
        try:
            if (work / "inputs.json").is_file() and not entry.exists():
                for name in ("graph.pt2", "sources.json"):
                    (work / name).unlink(missing_ok=True)
                work.rename(entry)
                self._prune()
        finally:
            shutil.rmtree(work, ignore_errors=True)
            (self.directory / f"{key}.lock").unlink(missing_ok=True)
        return self.find(key)

    def _prune(self) -> None:
        entries = [entry for entry in self.directory.iterdir() if (entry / "inputs.json").is_file()]
        entries.sort(key=lambda entry: entry.stat().st_mtime)
        for entry in entries[:-_KEPT]:
            shutil.rmtree(entry, ignore_errors=True)
        for left in self.directory.glob("*.part"):
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left, ignore_errors=True)

    @staticmethod
    def _is_own(path: Path) -> bool:
        """Whether the path is the user's, and nobody else may write to it."""
        if not hasattr(os, "getuid"):
            return True
        try:
            status = path.stat()
        except OSError:
            return False
        return status.st_uid == os.getuid() and not status.st_mode & 0o022
