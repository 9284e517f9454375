"""Format `onnx`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from gptkit.interop.programs.format import ProgramFormat
from gptkit.kinds.format import NativeModel, Progress

__all__ = ["OnnxFormat"]


class OnnxFormat(ProgramFormat):
    """A decode step as an ONNX model, for ONNX Runtime and other engines: one .onnx file in fp32.

    Notes:
        The inputs are ``input_ids`` (1, T) int64, ``position``, the number of tokens that earlier calls have processed, and
        the tensors of the cache, ``past.0.0`` (1, H, P, D) and so on. The outputs are ``logits`` (1, T, V) in fp32 and the
        cache after the call, ``present.0.0`` (1, H, P + T, D) and so on, in the same order. Requires the extra `onnx`.
        Files are written, and not read: `gptkit import` and `drift` refuse them.
    """

    suffixes = (".onnx",)
    first = b"\x08"  # the number of the first field in a file of protocol buffers, the version of ONNX
    noun = "an ONNX model"
    reason = "it has operators, and no spec"

    name: Literal["onnx"] = "onnx"
    tokens: int | None = Field(
        None,
        ge=1,
        description="Largest number of tokens of a call; by default the context length, or 1 where a layer cannot be "
        "expressed for several.",
    )

    def write_program(self, model: NativeModel, path: Path, progress: Progress | None) -> Sequence[str]:
        from gptkit.interop.formats.onnx.writing import write_file

        return write_file(model, path, tokens=self.tokens, progress=progress)
