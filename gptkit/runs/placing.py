"""Atomic replacement of runs: the previous run is kept until the new one has a checkpoint.

A new run is prepared in a subdirectory, where a failure changes no other files. Then the files of the previous run are moved
aside, and those of the new run into the directory. Only files that gptkit wrote are moved. Each step is a rename, and the
existing subdirectories record the progress, so that the next command can finish or undo it:

::

    .gptkit-incoming    a run under preparation: removed
    .gptkit-ready       a prepared run, whose files are being moved: finished, or removed where it replaces another
    .gptkit-moving      files of the previous run, being moved here or back: moved back
    .gptkit-previous    all files of the previous run: moved back, unless the new run has a checkpoint
    .gptkit-discarded   files of a previous run, to be removed
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.atomic import sync, writing
from gptkit.core.errors import CheckpointError

if TYPE_CHECKING:
    from gptkit.runs.directory import RunDirectory

__all__ = ["Placement"]


class Placement:
    """Replacement of a run and its subdirectories.

    Args:
        run: the run directory. All methods require its lock, except `interrupted` and `incoming`.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self.incoming = run.path / ".gptkit-incoming"
        self._ready = run.path / ".gptkit-ready"
        self._moving = run.path / ".gptkit-moving"
        self._previous = run.path / ".gptkit-previous"
        self._discarded = run.path / ".gptkit-discarded"

    @property
    def interrupted(self) -> bool:
        """Whether a replacement was interrupted, which `recover` finishes or undoes, or is in progress."""
        everything = (self.incoming, self._ready, self._moving, self._previous, self._discarded)
        return any(directory.is_dir() for directory in everything)

    @property
    def replaces(self) -> bool:
        """Whether a previous run is kept, which `roll_back` restores."""
        return self._previous.is_dir()

    def begin(self) -> Path:
        """Create the directory in which the new run is prepared."""
        with writing(self.incoming):
            self.incoming.mkdir(parents=True)
        return self.incoming

    def abandon(self) -> None:
        """Remove a preparation that failed."""
        shutil.rmtree(self.incoming, ignore_errors=True)

    def place(self, files: Sequence[str]) -> None:
        """Move the files of the existing run aside, and the prepared files into the directory.

        Args:
            files: every file that the new run has or will create, relative to its directory.

        Raises:
            CheckpointError: a file that gptkit did not write would be replaced.
            FileError: a file cannot be moved.
        """
        own = self._run.own_files()
        _require_room(self._run.path, files, own)
        with writing(self._run.path):
            if own:
                # First, so that a prepared run without this directory never replaces another run.
                self._moving.mkdir()
            self.incoming.rename(self._ready)
            if own:
                self._move(own, self._run.path, self._moving)
                _remove_empty(self._run.path, own)
                self._moving.rename(self._previous)
            self._finish()

    def commit(self) -> None:
        """Discard the previous run; the new one has a checkpoint."""
        if self._previous.is_dir():
            with writing(self._previous):
                self._previous.rename(self._discarded)
            shutil.rmtree(self._discarded, ignore_errors=True)

    def roll_back(self) -> None:
        """Remove the new run's files, and restore the previous run."""
        with writing(self._run.path):
            CheckpointStore(self._run.checkpoints).clean()
            new = self._run.own_files()
            # The provenance is removed last: it lists the other files.
            for file in sorted(new, key=lambda file: file == self._run.provenance):
                file.unlink(missing_ok=True)
            _remove_empty(self._run.path, new)
            # Only now: with a checkpoint and without this directory the new run would count as complete.
            shutil.rmtree(self._ready, ignore_errors=True)
            self._previous.rename(self._moving)
            self._move_back()

    def recover(self) -> None:
        """Finish or undo the replacement of a killed process."""
        for directory in (self.incoming, self._discarded):
            shutil.rmtree(directory, ignore_errors=True)
        if self._moving.is_dir():
            shutil.rmtree(self._ready, ignore_errors=True)
            with writing(self._run.path):
                self._move_back()
        elif self._previous.is_dir():
            if self._run.has_checkpoint and not self._ready.is_dir():
                self.commit()
            else:
                self.roll_back()
        elif self._ready.is_dir():
            with writing(self._run.path):
                self._finish()

    def _finish(self) -> None:
        # The provenance is written first: it marks the other files as gptkit's.
        files = sorted(_files(self._ready), key=lambda file: file.name != self._run.provenance.name)
        self._move(files, self._ready, self._run.path)
        shutil.rmtree(self._ready, ignore_errors=True)
        sync(self._run.path)

    def _move_back(self) -> None:
        self._move(_files(self._moving), self._moving, self._run.path)
        shutil.rmtree(self._moving, ignore_errors=True)
        sync(self._run.path)

    @staticmethod
    def _move(files: Iterable[Path], source: Path, target: Path) -> None:
        for file in files:
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.rename(place)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if not path.is_dir())


def _remove_empty(top: Path, files: Iterable[Path]) -> None:
    """Remove the directories that are empty after their files were moved."""
    parents = {parent for file in files for parent in file.parents if top in parent.parents}
    for directory in sorted(parents, key=lambda parent: -len(parent.parts)):
        with contextlib.suppress(OSError):
            directory.rmdir()


def _require_room(top: Path, files: Iterable[str], own: Iterable[Path]) -> None:
    replaced = set(own)
    for name in files:
        path = top / PurePosixPath(name)
        for parent in path.parents:
            if top in parent.parents and (parent.is_symlink() or (parent.exists() and not parent.is_dir())):
                raise _in_the_way(parent)
        if (path.exists() or path.is_symlink()) and path not in replaced:
            raise _in_the_way(path)


def _in_the_way(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} was not written by gptkit, and the run would replace it", hint="Move it, or choose another directory."
    )
