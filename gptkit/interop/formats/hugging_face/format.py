"""Format `hugging-face`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gptkit.kinds.format import Detection, ExternalModel, FormatSpec, NativeModel, Progress

if TYPE_CHECKING:
    from gptkit.core.registry import Registry

__all__ = ["HuggingFaceFormat"]


class HuggingFaceFormat(FormatSpec):
    """A directory as transformers saves it, which vLLM and others load too: config.json, safetensors, tokenizer.json.

    Notes:
        Weights are read from safetensors files only. Defaults of generation (generation_config.json) are kept in the run
        and written again.
    """

    name: Literal["hugging-face"] = "hugging-face"

    def detect(self, path: Path) -> Detection:
        if path.is_file():
            return Detection(0, "is a file; give the directory that holds config.json")
        if (path / "config.json").is_file():
            return Detection(1, "has a config.json")
        if any(path.glob("*.safetensors")) or any(path.glob("*.bin")):
            return Detection(0.3, "has weights, and no config.json")
        return Detection(0, "has no config.json")

    def read(self, path: Path, registry: Registry | None = None) -> ExternalModel:
        from gptkit.interop.formats.hugging_face.model import HuggingFaceModel

        return HuggingFaceModel(path)

    def write(
        self,
        model: NativeModel,
        path: Path,
        *,
        family: str | None = None,
        progress: Progress | None = None,
        registry: Registry | None = None,
    ) -> Sequence[str]:
        from gptkit.interop.formats.hugging_face.writing import write_directory

        return write_directory(model, path, family=family, progress=progress, registry=registry)
