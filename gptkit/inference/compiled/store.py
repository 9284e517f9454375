"""Directory of compiled decode steps, in the user's cache directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from gptkit.core.paths import cache_directory, is_own
from gptkit.core.sealed import seal, unseal

__all__ = ["Store"]

_KEPT = 64
"""Number of compiled steps that are kept, a few MB each; those used longest ago are removed."""

_STALE = 3600.0
"""Seconds after which an unfinished compilation is taken to have been killed."""

_RETRIED = 86400.0
"""Seconds after which a failed compilation is tried again: a compiler may have been installed, or memory be free."""

_FILES = ("inputs.json", "constants.safetensors", "step.so", "step.json")
"""Files of an entry that are read; some steps have no `step.json`."""

_SUMS = "sums.json"
"""The file with the checksums of an entry's files."""

_ENTRY = re.compile(r"[0-9a-f]{32}")
_UNFINISHED = re.compile(r"[0-9a-f]{32}\.\w+\.part")
"""Names that this module gives to directories. Nothing with another name is removed."""


class Store:
    """Compiled steps by key, shared by all processes of a user.

    An entry is a directory that appears whole, by one rename, and is never changed. The machine code in it is executed, so
    the directory is readable and writable for the user only, and one that belongs to another user is not read. An entry
    whose files are not those that were written, such as after a power failure, is removed.

    Args:
        directory: ``decode`` in the cache directory by default.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = cache_directory() / "decode" if directory is None else directory

    def find(self, key: str) -> Path | None:
        """The entry's directory; None if there is none."""
        entry = self.directory / key
        if not (entry / "inputs.json").is_file() or not is_own(self.directory) or not is_own(entry):
            return None
        if not _is_sound(entry):
            shutil.rmtree(entry, ignore_errors=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(entry)
        return entry

    def failure(self, key: str) -> str | None:
        """Why a compilation of this key failed within the last day; None if it has not, and may be tried again."""
        file = self.directory / f"{key}.failed"
        try:
            return None if time.time() - file.stat().st_mtime > _RETRIED else file.read_text(encoding="utf-8")
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
        if not is_own(self.directory):
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
                sums = {name: _digest(work / name) for name in _FILES if (work / name).is_file()}
                (work / _SUMS).write_text(seal({"files": sums}), encoding="utf-8")
                work.rename(entry)
                self._prune()
        finally:
            shutil.rmtree(work, ignore_errors=True)
            (self.directory / f"{key}.lock").unlink(missing_ok=True)
        return self.find(key)

    def _prune(self) -> None:
        entries = [path for path in self.directory.iterdir() if _ENTRY.fullmatch(path.name) and path.is_dir()]
        entries.sort(key=lambda path: path.stat().st_mtime)
        unfinished = [path for path in self.directory.iterdir() if _UNFINISHED.fullmatch(path.name)]
        stale = [path for path in unfinished if time.time() - path.stat().st_mtime > _STALE]
        for path in (*entries[:-_KEPT], *stale):
            shutil.rmtree(path, ignore_errors=True)


def _is_sound(entry: Path) -> bool:
    """Return whether the files of an entry are those that were written."""
    try:
        sums = unseal((entry / _SUMS).read_text(encoding="utf-8"))["files"]
        return all(_digest(entry / name) == digest for name, digest in sums.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
