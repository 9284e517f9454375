"""The GGUF file of a run: written once into a cache directory, with a vocabulary of token ids."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gptkit.core.errors import ExternalModelError
from gptkit.core.paths import cache_directory, expand_home
from gptkit.engines.exports import export_key, keep_newest, with_token_rows
from gptkit.interop.formats.gguf.container import Typed
from gptkit.interop.formats.gguf.writing import write_model
from gptkit.kinds.engine import EngineContext
from gptkit_llamacpp.quantization import elements

if TYPE_CHECKING:
    from gptkit_llamacpp.spec import LlamaCppEngineSpec

__all__ = ["exported"]

_VERSION = 2
"""Increased when the content of files for the same run changes."""
_NAME = re.compile(r"gptkit-[0-9a-f]{32}\.gguf")


def exported(spec: LlamaCppEngineSpec, context: EngineContext) -> tuple[Path, int]:
    """Return the file of a run, which is written if the cache directory does not have it, and the model's context length.

    Raises:
        ExternalModelError: GGUF cannot express the model; the hint names the native engine.
        FileError: the file cannot be written.
    """
    size = context.tokenizer.vocab_size
    model = with_token_rows(context.native_model(), size)
    directory = _directory(spec)
    file = directory / f"gptkit-{export_key(model, _VERSION, spec.type)}.gguf"
    if not file.exists():
        try:
            # Written under a temporary name, and renamed.
            directory.mkdir(parents=True, exist_ok=True)
            write_model(model, file, elements=elements(spec.type), vocabulary=_vocabulary(size), family=model.family)
        except ExternalModelError as error:
            raise ExternalModelError(
                f"llama.cpp cannot compute {context.directory}: {error.message}", hint="Use --engine native."
            ) from None
    os.utime(file)
    _prune(directory, spec.keep)
    return file, model.spec.context_length


def _directory(spec: LlamaCppEngineSpec) -> Path:
    if spec.directory is not None:
        return expand_home(spec.directory, "directory")
    return cache_directory() / "llama.cpp"


def _prune(directory: Path, keep: int) -> None:
    """Remove the least recently used files that this module wrote. Programs that have opened one are not affected."""
    keep_newest((path for path in directory.iterdir() if _NAME.fullmatch(path.name) and path.is_file()), keep)


def _vocabulary(size: int) -> Mapping[str, Typed]:
    """Return the metadata of a vocabulary in which the text of a token is its id.

    Texts are encoded and decoded by gptkit. llama.cpp streams texts, and holds back incomplete characters; with these ones
    it streams every token, whatever the tokenizer is. The type `rwkv` has no start and end tokens.
    """
    return {
        "tokenizer.ggml.model": Typed("string", "rwkv"),
        "tokenizer.ggml.tokens": Typed("strings", [f"<{token}>" for token in range(size)]),
    }
