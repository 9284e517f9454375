"""Format `gguf`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from gptkit.core.errors import ExternalModelError
from gptkit.kinds.format import Detection, ExternalModel, FormatSpec, NativeModel, Progress

if TYPE_CHECKING:
    from gptkit.core.registry import Registry

__all__ = ["GgufFormat"]

_MAGIC = b"GGUF"


class GgufFormat(FormatSpec):
    """A file of llama.cpp and the programs built on it: one file with metadata, tokenizer and tensors.

    Notes:
        The architectures of the built-in families are listed in `gptkit.interop.formats.gguf.architectures`; a family of a
        plugin declares its own (`FamilySpec.gguf`). Quantized tensors are read as float32, which needs `gptkit[gguf]`;
        matrices are written as `type`, vectors always as f32.
    """

    suffixes = (".gguf",)

    name: Literal["gguf"] = "gguf"
    type: Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "q6_k"] = Field(
        "f32", description="Element type in which matrices are written."
    )

    def detect(self, path: Path) -> Detection:
        if path.is_dir():
            files = sorted(path.glob("*.gguf"))
            if len(files) == 1:
                return Detection(0.5, "holds one GGUF file")
            return Detection(0, f"holds {len(files)} GGUF files; give one of them" if files else "holds no GGUF file")
        try:
            with path.open("rb") as stream:
                begin = stream.read(len(_MAGIC))
        except OSError as error:
            return Detection(0, f"cannot be read ({error.strerror or error})")
        if begin == _MAGIC:
            return Detection(1, "begins with GGUF")
        if path.suffix.lower() in self.suffixes:
            return Detection(0.5, f"has the suffix {path.suffix}")
        return Detection(0, "does not begin with GGUF")

    def read(self, path: Path, registry: Registry | None = None) -> ExternalModel:
        from gptkit.interop.formats.gguf.model import GgufModel

        if path.is_dir():
            files = sorted(path.glob("*.gguf"))
            if len(files) != 1:
                raise ExternalModelError(f"{path} {self.detect(path).reason}", hint="Pass the path of one GGUF file.")
            path = files[0]
        return GgufModel(path, registry)

    def write(
        self,
        model: NativeModel,
        path: Path,
        *,
        family: str | None = None,
        progress: Progress | None = None,
        registry: Registry | None = None,
    ) -> Sequence[str]:
        from gptkit.interop.formats.gguf.writing import write_model

        return write_model(model, path, type=self.type, family=family, progress=progress, registry=registry)
