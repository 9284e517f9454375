"""Base of the formats whose files are programs: they are written and checked, and not read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NoReturn

from gptkit.core.errors import ExternalModelError
from gptkit.kinds.format import Detection, FormatSpec, NativeModel, Progress

if TYPE_CHECKING:
    from gptkit.core.registry import Registry

__all__ = ["ProgramFormat"]


class ProgramFormat(FormatSpec):
    """Format of one file that holds a program.

    Attributes:
        first: the first bytes of such a file.
        noun: what the file is, with an article, for messages.
        reason: why it is not read.
    """

    is_program: ClassVar[bool] = True
    commands = ("gptkit export RUN PATH --to {name}",)
    first: ClassVar[bytes]
    noun: ClassVar[str]
    reason: ClassVar[str]

    def detect(self, path: Path) -> Detection:
        if path.is_dir():
            return Detection(0, "is a directory")
        if path.suffix.lower() not in self.suffixes:
            return Detection(0, f"does not have the suffix {self.suffixes[0]}")
        try:
            with path.open("rb") as stream:
                begin = stream.read(len(self.first))
        except OSError as error:
            return Detection(0, f"cannot be read ({error.strerror or error})")
        if begin != self.first:
            return Detection(0.5, f"has the suffix {path.suffix}, and does not begin as {self.noun}")
        return Detection(1, f"begins as {self.noun}, with the suffix {path.suffix}")

    def read(self, path: Path, registry: Registry | None = None) -> NoReturn:
        raise ExternalModelError(
            f"{path} is {self.noun}, which gptkit writes but does not read: {self.reason}",
            hint="Use the run or the model that it was exported from.",
        )

    def write(
        self,
        model: NativeModel,
        path: Path,
        *,
        family: str | None = None,
        progress: Progress | None = None,
        registry: Registry | None = None,
    ) -> Sequence[str]:
        if family is not None:
            raise ExternalModelError(f"a program has no model family, so {family!r} cannot apply", hint="Remove --family.")
        return self.write_program(model, path, progress)

    @abstractmethod
    def write_program(self, model: NativeModel, path: Path, progress: Progress | None) -> Sequence[str]:
        """Write the file, and return what the export reports about it."""
