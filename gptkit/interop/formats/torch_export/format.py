"""Format `torch-export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from gptkit.interop.programs.format import ProgramFormat
from gptkit.kinds.format import NativeModel, Progress

__all__ = ["TorchExportFormat"]


class TorchExportFormat(ProgramFormat):
    """A program of torch.export with a decoding cache, which torch runs without gptkit: one .pt2 file.

    Notes:
        The program is ``program(ids, position)``: ids (1, T) int64, and the number of tokens that earlier calls have
        processed, which is 0 for a new text. It returns the logits (1, T, V) in fp32. The cache consists of buffers of the
        program. Programs are written, and not read: `gptkit import` and `drift` refuse them.
    """

    suffixes = (".pt2",)
    first = b"PK\x03\x04"  # an archive
    noun = "a program of torch.export"
    reason = "it has no spec, and loading it executes what the file contains"

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

    def write_program(self, model: NativeModel, path: Path, progress: Progress | None) -> Sequence[str]:
        from gptkit.interop.formats.torch_export.writing import write_program

        return write_program(model, path, capacity=self.capacity, tokens=self.tokens, progress=progress)
