"""A model in a directory as transformers saves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptkit.core.errors import ExternalModelError
from gptkit.core.paths import real
from gptkit.interop.formats.hugging_face.parts import JoinedParts
from gptkit.interop.tensor_files import TensorFiles, read_json
from gptkit.kinds.format import ExternalModel, ExternalTokenizer
from gptkit.text.hub_files import read_config, token_text

__all__ = ["CONFIG", "GENERATION", "TOKENIZER", "TOKENIZER_CONFIG", "HuggingFaceModel"]

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
_GENERIC = (None, "PreTrainedTokenizerFast", "TokenizersBackend")
"""Tokenizer classes without default tokens."""


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

    def tensors(self) -> JoinedParts:
        return JoinedParts(TensorFiles(self.directory))

    def tokenizer(self) -> ExternalTokenizer:
        if not (self.directory / TOKENIZER).is_file():
            hint = "Save it with a fast tokenizer, or choose another, for example --tokenizer byte."
            raise ExternalModelError(f"{self.directory} has no {TOKENIZER}", hint=hint)
        return ExternalTokenizer({"name": "hugging-face", "path": str(real(self.directory))})

    def token_settings(self) -> Mapping[str, Any]:
        config = read_config(self.directory)
        result: dict[str, Any] = {}
        for key in _TOKENS:
            if key in config:
                result[key] = token_text(config[key])
        if config.get("padding_side") in ("left", "right"):
            result["padding_side"] = config["padding_side"]
        if isinstance(config.get("model_max_length"), int):
            result["model_max_length"] = config["model_max_length"]
        if isinstance(config.get("add_eos_token"), bool):
            result["add_eos_token"] = config["add_eos_token"]
        inner = self.config.get("text_config")
        ids_of = {**(inner if isinstance(inner, dict) else {}), **self.config}
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            ids = ids_of.get(key)
            if isinstance(ids, int) or (isinstance(ids, list) and ids and all(isinstance(each, int) for each in ids)):
                result[key] = ids
        return {**self._default_tokens(config, result), **result}

    def _default_tokens(self, config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, str]:
        """Return the first and last token where only the tokenizer's class names them (GPT-2): those of config.json."""
        absent = [
            key for key in ("bos_token", "eos_token") if key not in config and isinstance(settings.get(f"{key}_id"), int)
        ]
        if not absent or config.get("tokenizer_class") in _GENERIC or not (self.directory / TOKENIZER).is_file():
            return {}
        added = read_json(self.directory / TOKENIZER).get("added_tokens")
        entries = [entry for entry in added if isinstance(entry, dict)] if isinstance(added, list) else []
        names = {entry.get("id"): token_text(entry) for entry in entries if entry.get("special")}
        tokens = {key: names.get(settings[f"{key}_id"]) for key in absent}
        return {key: token for key, token in tokens.items() if token is not None}

    def generation(self) -> Mapping[str, Any]:
        file = self.directory / GENERATION
        return read_json(file) if file.is_file() else {}
