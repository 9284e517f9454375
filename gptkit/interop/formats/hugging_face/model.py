"""A model in a directory as transformers saves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptkit.core.errors import ExternalModelError
from gptkit.core.paths import real
from gptkit.interop.tensor_files import TensorFiles, read_json
from gptkit.kinds.format import ExternalModel, ExternalTokenizer

__all__ = ["CONFIG", "GENERATION", "TOKENIZER", "TOKENIZER_CONFIG", "HuggingFaceModel"]

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"


class HuggingFaceModel(ExternalModel):
    """The model of a directory; weights are read one by one.

    Raises:
        ExternalModelError: config.json is missing or damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.directory: Path = directory
        self.location = str(directory)
        self.config_location = str(directory / CONFIG)
        self.config = read_json(directory / CONFIG)

    def tensors(self) -> TensorFiles:
        return TensorFiles(self.directory)

    def tokenizer(self) -> ExternalTokenizer:
        if not (self.directory / TOKENIZER).is_file():
            hint = "Save it with a fast tokenizer, or choose another, for example --tokenizer byte."
            raise ExternalModelError(f"{self.directory} has no {TOKENIZER}", hint=hint)
        return ExternalTokenizer({"name": "hugging-face", "path": str(real(self.directory))})

    def token_settings(self) -> Mapping[str, Any]:
        result: dict[str, Any] = {}
        file = self.directory / TOKENIZER_CONFIG
        config = read_json(file) if file.is_file() else {}
        pad = config.get("pad_token")
        pad = pad.get("content") if isinstance(pad, dict) else pad
        if isinstance(pad, str):
            result["pad_token"] = pad
        if config.get("padding_side") in ("left", "right"):
            result["padding_side"] = config["padding_side"]
        if isinstance(config.get("model_max_length"), int):
            result["model_max_length"] = config["model_max_length"]
        for key in ("eos_token_id", "pad_token_id"):
            ids = self.config.get(key)
            if isinstance(ids, int) or (isinstance(ids, list) and ids and all(isinstance(each, int) for each in ids)):
                result[key] = ids
        return result

    def generation(self) -> Mapping[str, Any]:
        file = self.directory / GENERATION
        return read_json(file) if file.is_file() else {}
