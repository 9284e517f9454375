"""Format `torch-export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn

from pydantic import Field

from gptkit.core.errors import ExternalModelError
from gptkit.kinds.format import Detection, FormatSpec, NativeModel, Progress

if TYPE_CHECKING:
    from gptkit.core.registry import Registry

__all__ = ["TorchExportFormat"]

_ZIP = b"PK\x03\x04"


class TorchExportFormat(FormatSpec):
    """A program of torch.export with a decoding cache, which torch runs without gptkit: one .pt2 file.

    Notes:
        The program is ``program(ids, position)``: ids (1, T) int64, and the number of tokens that earlier calls have
        processed, which is 0 for a new text. It returns the logits (1, T, V) in fp32. The cache consists of buffers of the
        program. Programs are written, and not read: `gptkit import` and `drift` refuse them.
    """

    suffixes = (".pt2",)
    commands = ("gptkit export RUN PATH --to {name}",)
    is_program: ClassVar[bool] = True

    name: Literal["torch-export"] = "torch-export"
    capacity: int | None = Field(
        None, ge=1, description="Largest number of tokens of a text; by default the context length, 4096 at most."
    )
    tokens: int | None = Field(
        None,
        ge=1,
        description="Largest number of tokens of a call; by default the capacity; 64 with a recurrence, and 1 where a "
        "layer cannot be traced for several.",
    )

    def detect(self, path: Path) -> Detection:
        if path.is_dir():
            return Detection(0, "is a directory")
        if path.suffix.lower() not in self.suffixes:
            return Detection(0, f"does not have the suffix {self.suffixes[0]}")
        try:
            with path.open("rb") as stream:
                begin = stream.read(len(_ZIP))
        except OSError as error:
            return Detection(0, f"cannot be read ({error.strerror or error})")
        if begin != _ZIP:
            return Detection(0.5, f"has the suffix {path.suffix}, and is not an archive")
        return Detection(1, f"is an archive with the suffix {path.suffix}")

    def read(self, path: Path, registry: Registry | None = None) -> NoReturn:
        raise ExternalModelError(
            f"{path} is a program of torch.export, which gptkit writes but does not read: it has no spec, and loading it "
            "executes what the file contains",
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
        from gptkit.interop.formats.torch_export.writing import write_program

        if family is not None:
            raise ExternalModelError(f"a program has no model family, so {family!r} cannot apply", hint="Remove --family.")
        return write_program(model, path, capacity=self.capacity, tokens=self.tokens, progress=progress)
