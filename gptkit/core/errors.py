"""Every error gptkit raises on purpose.

::

    GptkitError                      something the user can put right; the CLI prints it and exits with 2
    ├── SpecError                    a spec (file) is invalid; carries one Problem per error
    ├── RegistryError                the set of installed components is inconsistent
    │   ├── UnknownComponentError    no component of that name; suggests the closest
    │   ├── CollisionError           two distributions took one name
    │   └── RequirementError         `requires` of a spec or run is not met
    ├── TokenizerError               a tokenizer is unavailable, or cannot be trained or loaded
    ├── DataError                    a corpus is missing, empty or unreadable
    ├── FileError                    a file may not be read, or cannot be written
    ├── CapacityError                the model cannot fit; carries the numbers
    ├── StateError                   a cache was asked for what it cannot hold or undo
    ├── CheckpointError              a run or checkpoint is missing, damaged or of another shape
    ├── ExternalModelError           an external model is damaged, or one of the two sides cannot express the other
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
    """Something the user can put right.

    Args:
        message: what is wrong, and where.
        hint: what to do about it, as one sentence.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


@dataclass(frozen=True)
class Problem:
    """One error in a spec.

    Args:
        path: keys and indices that lead to it, from the spec that reports it; `()` for that spec as a whole.
        message: what is wrong, and what to do.
        source: the spec file, if there is one.
        line: in that file, counted from 1.
        column: in that line, counted from 1.
    """

    path: tuple[str | int, ...]
    message: str
    source: str | None = None
    line: int | None = None
    column: int | None = None

    @property
    def dotted(self) -> str:
        """The path as it is written for `--set`: ``model.layers.0.attention``."""
        return ".".join(str(part) for part in self.path)

    def below(self, *parents: str | int) -> Problem:
        """The same problem, its path continued upward by the keys that lead to the spec that reported it."""
        return replace(self, path=(*parents, *self.path))

    def __str__(self) -> str:
        place = self.source or ""
        if self.line is not None:
            place = f"{place}:{self.line}:{self.column or 1}"
        return ": ".join(part for part in (place, self.dotted, self.message) if part)


class SpecError(GptkitError):
    """A spec is invalid. `problems` holds every error that was found, in the order of the file."""

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems), hint=hint)


class RegistryError(GptkitError):
    """The set of installed components is inconsistent."""


class UnknownComponentError(RegistryError):
    """No component of that kind has that name."""


class CollisionError(RegistryError):
    """Two distributions took one name, so it means nothing until one of them is switched off."""


class RequirementError(RegistryError):
    """A distribution that a spec or run asks for is missing or of another version."""


class TokenizerError(GptkitError):
    """A tokenizer is unavailable, or cannot be trained or loaded."""


class DataError(GptkitError):
    """A corpus is missing, empty or unreadable."""


class FileError(GptkitError):
    """A file may not be read, or cannot be written. The message names the file and the system's reason."""

    @classmethod
    def reading(cls, path: Path, error: OSError) -> FileError:
        """The error for a file that could not be read."""
        hint = "Ask its owner for the permission to read it, or change it: chmod u+r FILE."
        return cls(f"{path} cannot be read: {_reason(error)}", hint=hint)

    @classmethod
    def writing(cls, path: Path, error: OSError) -> FileError:
        """The error for a file that could not be written."""
        full = error.errno in NO_ROOM
        hint = "Free some space there, or write to another disk." if full else "Check its directory and the permissions."
        return cls(f"{path} cannot be written: {_reason(error)}", hint=hint)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


class CapacityError(GptkitError):
    """The model cannot fit where it was to go."""


class StateError(GptkitError):
    """A cache was asked for what it cannot hold or undo."""


class CheckpointError(GptkitError):
    """A run or checkpoint is missing, damaged or of another shape."""


class ExternalModelError(GptkitError):
    """An external model cannot be read, or a model cannot be expressed in an external format."""


class TrainingError(GptkitError):
    """Training cannot continue."""
