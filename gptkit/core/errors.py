"""Exceptions of gptkit.

::

    GptkitError                      an error that the user can correct; the CLI prints it and exits with 2
    ├── SpecError                    a spec (file) is invalid; carries one Problem per error
    ├── RegistryError                the set of installed components is inconsistent
    │   ├── UnknownComponentError    no component of that name; suggests the closest
    │   ├── CollisionError           two distributions define the same name
    │   └── RequirementError         `requires` of a spec or run is not satisfied
    ├── TokenizerError               a tokenizer is unavailable, or cannot be trained or loaded
    ├── DataError                    a corpus is missing, empty or unreadable
    ├── FileError                    a file cannot be read or written
    ├── CapacityError                the model does not fit in memory
    ├── StateError                   an unsupported operation on a decoding cache
    ├── CheckpointError              a run or checkpoint is missing or damaged, or does not fit
    ├── ExternalModelError           an external model cannot be read, or a model cannot be expressed in an external format
    └── TrainingError                training cannot continue (the loss is not finite, for example)
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = [
    "NO_ROOM",
    "CapacityError",
    "CheckpointError",
    "CollisionError",
    "DataError",
    "ExternalModelError",
    "FileError",
    "GptkitError",
    "Problem",
    "RegistryError",
    "RequirementError",
    "SpecError",
    "StateError",
    "TokenizerError",
    "TrainingError",
    "UnknownComponentError",
]


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Codes of the system's errors for a disk, quota or size limit that is reached."""


class GptkitError(Exception):
    """Error that the user can correct.

    Args:
        message: what is wrong, and its location.
        hint: the remedy, as one sentence.
        common: whether all processes of a distributed training raise it, so that only the main one prints it.
    """

    def __init__(self, message: str, *, hint: str | None = None, common: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.common = common

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


@dataclass(frozen=True)
class Problem:
    """One error in a spec.

    Args:
        path: keys and indices from the spec that reports the error; `()` for the spec as a whole.
        message: what is wrong, and what to do.
        source: the spec file, if there is one.
        line: line in the file, counted from 1.
        column: column in the line, counted from 1.
    """

    path: tuple[str | int, ...]
    message: str
    source: str | None = None
    line: int | None = None
    column: int | None = None

    @property
    def dotted(self) -> str:
        """The path in the syntax of `--set`: ``model.layers.0.attention``."""
        return ".".join(str(part) for part in self.path)

    def below(self, *parents: str | int) -> Problem:
        """Return the problem with its path prefixed by the keys of the parent specs."""
        return replace(self, path=(*parents, *self.path))

    def __str__(self) -> str:
        place = self.source or ""
        if self.line is not None:
            place = f"{place}:{self.line}:{self.column or 1}"
        return ": ".join(part for part in (place, self.dotted, self.message) if part)


class SpecError(GptkitError):
    """A spec is invalid. `problems` holds all errors, in the order of the file."""

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems), hint=hint)


class RegistryError(GptkitError):
    """The set of installed components is inconsistent."""


class UnknownComponentError(RegistryError):
    """A component of this kind and name does not exist."""


class CollisionError(RegistryError):
    """Two distributions define the same name, which is unavailable until one of them is disabled."""


class RequirementError(RegistryError):
    """A distribution that a spec or run requires is not installed, or has another version."""


class TokenizerError(GptkitError):
    """A tokenizer is unavailable, or cannot be trained or loaded."""


class DataError(GptkitError):
    """A corpus is missing, empty or unreadable."""


class FileError(GptkitError):
    """A file cannot be read or written. The message names the file and the system's reason."""

    @classmethod
    def reading(cls, path: Path, error: OSError) -> FileError:
        """Return the error for a file that could not be read."""
        hint = "Ask its owner for the permission to read it, or change it: chmod u+r FILE."
        return cls(f"{path} cannot be read: {_reason(error)}", hint=hint)

    @classmethod
    def writing(cls, path: Path, error: OSError) -> FileError:
        """Return the error for a file that could not be written."""
        link = next((part for part in (path, *path.parents) if part.is_symlink() and not part.exists()), None)
        if link is not None:
            hint = "Create the directory that the link leads to, or remove the link."
            return cls(f"{path} cannot be written: {link} is a link to {link.readlink()}, which does not exist", hint=hint)
        full = error.errno in NO_ROOM
        hint = "Free some space there, or write to another disk." if full else "Check its directory and the permissions."
        return cls(f"{path} cannot be written: {_reason(error)}", hint=hint)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


class CapacityError(GptkitError):
    """The model does not fit in memory."""


class StateError(GptkitError):
    """An operation that a decoding cache does not support."""


class CheckpointError(GptkitError):
    """A run or checkpoint is missing or damaged, or does not fit the model."""


class ExternalModelError(GptkitError):
    """An external model cannot be read, or a model cannot be expressed in an external format."""


class TrainingError(GptkitError):
    """Training cannot continue."""
