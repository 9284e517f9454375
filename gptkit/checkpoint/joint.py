"""Checkpoints that several processes write together, in the background.

Each process copies its parts of the tensors to host memory, and a thread writes them into the files while the next steps
run. After each step the processes exchange what they have done; when all have written, a thread of the main process commits
the directory.
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from gptkit.checkpoint.located import Located, Place, create_file, write_parts
from gptkit.core.atomic import sync
from gptkit.core.commands import command
from gptkit.core.errors import NO_ROOM, CheckpointError, FileError

__all__ = ["JointFiles", "Participants", "PendingCheckpoint", "not_written", "raise_common"]

_DENIED = frozenset({errno.EACCES, errno.EPERM})

_INTERVAL = 0.05
"""Seconds between two exchanges while nothing else is computed."""

_FAILED, _WRITING, _WRITTEN, _COMMITTED = range(-1, 3)
"""What a process has done, in this order, so that the smallest number of all processes is what all have done."""


class Participants(Place, Protocol):
    """The processes of a training."""

    @property
    def is_main(self) -> bool:
        """Whether this process commits."""

    def least(self, number: int) -> int:
        """Return the smallest number of all processes; collective."""

    def texts(self, text: str) -> list[str]:
        """Return the texts of all processes; collective."""


class JointFiles:
    """The files of a checkpoint as several processes write them.

    Args:
        tensors: the tensors of each file by name.
        metadata: the metadata of each file.
    """

    def __init__(
        self, tensors: Mapping[str, Mapping[str, Located]], metadata: Mapping[str, Mapping[str, str] | None]
    ) -> None:
        self._tensors = tensors
        self._metadata = metadata

    def create(self, directory: Path) -> None:
        """Create the files without values; the main process does so."""
        for name, tensors in self._tensors.items():
            create_file(directory / name, tensors, self._metadata[name])

    def write(self, directory: Path) -> None:
        """Write this process's parts, to the disk."""
        for name, tensors in self._tensors.items():
            write_parts(directory / name, tensors, self._metadata[name])
            sync(directory / name)


class _Task:
    """A function that runs in a thread."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self._function = function
        # A daemon: a process that ends by an error does not wait for it.
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    @property
    def runs(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self._function()
        except BaseException as error:
            self.error = error


class PendingCheckpoint:
    """A checkpoint that is being written. Every process has one, and makes the same calls.

    Args:
        step: its number of steps.
        path: its directory, once it is committed.
        participants: the processes.
        write: writes the parts of this process.
        commit: commits the directory; called in the main process when all processes have written.
        discard: removes what was written; called in the main process after a failure.
    """

    def __init__(
        self,
        step: int,
        path: Path,
        participants: Participants,
        *,
        write: Callable[[], object],
        commit: Callable[[], object],
        discard: Callable[[], object],
    ) -> None:
        self.step = step
        self.path = path
        self._commit, self._discard = commit, discard
        self._participants = participants
        self._writing = _Task(write)
        self._committing: _Task | None = None

    def advance(self) -> bool:
        """Commit if all processes have written, without waiting; return whether it is complete or failed. Collective."""
        stage = self._participants.least(self._stage())
        if stage == _WRITTEN and self._committing is None and self._participants.is_main:
            self._committing = _Task(self._commit)
        return stage in (_FAILED, _COMMITTED)

    def finish(self) -> Path:
        """Wait until the checkpoint is complete, and return its directory; collective.

        Raises:
            CheckpointError: a process failed to write. All processes raise it, with the same message.
        """
        while not self.advance():
            self._last.join(_INTERVAL)
        self._last.join()
        raise_common(self._participants, self.path, self._last.error, self._discard)
        return self.path

    def abandon(self, timeout: float) -> None:
        """Wait for a commit that has begun, after an error, at most `timeout` seconds."""
        if self._committing is not None:
            self._committing.join(timeout)

    @property
    def _last(self) -> _Task:
        return self._committing or self._writing

    def _stage(self) -> int:
        if self._last.runs:
            return _WRITING if self._committing is None else _WRITTEN
        if self._last.error is not None:
            return _FAILED
        return _WRITTEN if self._participants.is_main and self._committing is None else _COMMITTED


def raise_common(participants: Participants, path: Path, error: BaseException | None, discard: Callable[[], object]) -> None:
    """Raise the same error in all processes if one of them has one; collective.

    Args:
        participants: the processes.
        path: the directory of the checkpoint.
        error: the error of this process, if any.
        discard: called in the main process before the error is raised.

    Raises:
        CheckpointError: a process has an error.
    """
    own = "" if error is None else f"{_code_of(error) or 0}:{_reason_of(error)}"
    reasons = [reason for reason in participants.texts(own) if reason]
    if not reasons:
        return
    if participants.is_main:
        discard()
    code, _, reason = reasons[0].partition(":")
    raise _not_written(path, reason, int(code), common=True) from error


def _reason_of(error: BaseException) -> str:
    """Return the reason of an error for a message."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, (CheckpointError, FileError)):
        return error.message
    return f"{type(error).__name__}: {error}"


def _code_of(error: BaseException) -> int | None:
    """Return the system's code of an error, or of the one that caused it; None if the system reported none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause.errno
        cause = cause.__cause__
    in_text = re.search(r"\(os error (\d+)\)", str(error))  # of the library that writes tensors
    return int(in_text[1]) if in_text else None


def not_written(path: Path, error: BaseException) -> CheckpointError:
    """Return the error for a checkpoint, the directory `path`, that an error prevents from being written."""
    return _not_written(path, _reason_of(error), _code_of(error))


def _not_written(path: Path, why: object, code: int | None, *, common: bool = False) -> CheckpointError:
    """Return the error for a checkpoint that cannot be written.

    Args:
        path: its directory.
        why: the reason.
        code: the system's code of the reason, which determines the remedy; None or 0 if it is not known.
        common: whether all processes of the training raise it.
    """
    if code in NO_ROOM:
        remedy = "Free disk space or choose another directory"
    elif code in _DENIED:
        remedy = f"Allow writing: {command('chmod u+w', path.parent)}, or choose another directory"
    elif code == errno.EROFS:
        remedy = "Its file system is read-only: mount it for writing, or choose another directory"
    else:
        remedy = "Check the disk and the permissions of the directory, or choose another one"
    earlier = any(each.is_dir() for each in path.parent.glob("step-*"))  # none in an import, for example
    hint = f"{remedy}, then {'resume the run; earlier checkpoints are intact' if earlier else 'repeat the command'}."
    return CheckpointError(f"{path}: the checkpoint cannot be written: {why}", hint=hint, common=common)
