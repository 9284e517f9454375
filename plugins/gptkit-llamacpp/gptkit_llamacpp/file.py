"""The GGUF file of a run: written once into a cache directory, with a vocabulary of token ids."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gptkit.core.errors import ExternalModelError
from gptkit.core.paths import cache_directory, expand_home
from gptkit.interop.formats.gguf.container import Typed
from gptkit.interop.formats.gguf.writing import write_model
from gptkit.kinds.engine import EngineContext
from gptkit.kinds.format import NativeModel, TensorEntry, Tensors
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
    model = context.native_model()
    size = context.tokenizer.vocab_size
    model = replace(
        model,
        spec=model.spec.model_copy(update={"vocab_size": size}),
        tensors=_Rows(model.tensors, model.spec.vocab_size or size, size),
    )
    directory = _directory(spec)
    file = directory / f"gptkit-{_digest(model, spec.type)}.gguf"
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
    files = [path for path in directory.iterdir() if _NAME.fullmatch(path.name) and path.is_file()]
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)[:-keep]:
        path.unlink(missing_ok=True)


def _digest(model: NativeModel, type: str) -> str:
    """Return the hash of everything that the file depends on; the weights are read only if their checksum is unknown."""
    digest = hashlib.sha256(f"{_VERSION} {type} {model.family} {model.spec.model_dump_json()}".encode())
    if model.checksum is not None:
        digest.update(model.checksum.encode())
        return digest.hexdigest()[:32]
    for name, entry in sorted(model.tensors.entries.items()):
        digest.update(f"{name} {entry.shape} {entry.dtype}".encode())
        digest.update(model.tensors.get(name).detach().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _vocabulary(size: int) -> Mapping[str, Typed]:
    """Return the metadata of a vocabulary in which the text of a token is its id.

    Texts are encoded and decoded by gptkit. llama.cpp streams texts, and holds back incomplete characters; with these ones
    it streams every token, whatever the tokenizer is. The type `rwkv` has no start and end tokens.
    """
    return {
        "tokenizer.ggml.model": Typed("string", "rwkv"),
        "tokenizer.ggml.tokens": Typed("strings", [f"<{token}>" for token in range(size)]),
    }


@dataclass(frozen=True)
class _Rows:
    """Tensors whose embedding and output have one row per token of the tokenizer; the model may have been padded.

    Attributes:
        tensors: those of the model.
        rows: number of rows of the model's vocabulary.
        size: number of tokens of the tokenizer.
    """

    tensors: Tensors
    rows: int
    size: int

    @property
    def entries(self) -> Mapping[str, TensorEntry]:
        return {
            name: TensorEntry((self.size, *entry.shape[1:]), entry.dtype) if self._padded(name) else entry
            for name, entry in self.tensors.entries.items()
        }

    def get(self, name: str) -> Tensor:
        """Return one tensor."""
        tensor = self.tensors.get(name)
        return tensor[: self.size] if self._padded(name) else tensor

    def _padded(self, name: str) -> bool:
        shape = self.tensors.entries[name].shape
        return self.rows > self.size and name.startswith(("embedding.", "head.")) and shape[:1] == (self.rows,)
