"""Format `onnx`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn

from pydantic import Field

from gptkit.core.errors import ExternalModelError
from gptkit.kinds.format import Detection, FormatSpec, NativeModel, Progress

if TYPE_CHECKING:
    from gptkit.core.registry import Registry

__all__ = ["OnnxFormat"]

_FIRST = b"\x08"
"""The first byte of a file of protocol buffers whose first field is a number: the version of ONNX."""


class OnnxFormat(FormatSpec):
    """A decode step as an ONNX model, for ONNX Runtime and other engines: one .onnx file in fp32.

    Notes:
        The inputs are ``input_ids`` (1, T) int64, ``position``, the number of tokens that earlier calls have processed, and
        the tensors of the cache, ``past.0.0`` (1, H, P, D) and so on. The outputs are ``logits`` (1, T, V) in fp32 and the
        cache after the call, ``present.0.0`` (1, H, P + T, D) and so on, in the same order. Requires the extra `onnx`.
        Files are written, and not read: `gptkit import` and `drift` refuse them.
    """

    suffixes = (".onnx",)
    commands = ("gptkit export RUN PATH --to {name}",)
    is_program: ClassVar[bool] = True

    name: Literal["onnx"] = "onnx"
    tokens: int | None = Field(
        None,
        ge=1,
        description="Largest number of tokens of a call; by default the context length, or 1 where a layer cannot be "
        "expressed for several.",
    )

    def detect(self, path: Path) -> Detection:
        if path.is_dir():
            return Detection(0, "is a directory")
        if path.suffix.lower() not in self.suffixes:
            return Detection(0, f"does not have the suffix {self.suffixes[0]}")
        try:
            with path.open("rb") as stream:
                begin = stream.read(len(_FIRST))
        except OSError as error:
            return Detection(0, f"cannot be read ({error.strerror or error})")
        if begin != _FIRST:
            return Detection(0.5, f"has the suffix {path.suffix}, and does not begin as an ONNX model")
        return Detection(1, f"begins as an ONNX model, with the suffix {path.suffix}")

    def read(self, path: Path, registry: Registry | None = None) -> NoReturn:
        raise ExternalModelError(
            f"{path} is an ONNX model, which gptkit writes but does not read: it has operators, and no spec",
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
        from gptkit.interop.formats.onnx.writing import write_file

        if family is not None:
            raise ExternalModelError(f"a program has no model family, so {family!r} cannot apply", hint="Remove --family.")
        return write_file(model, path, tokens=self.tokens, progress=progress)
