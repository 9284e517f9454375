"""What engines share that compute an export of a run: its name in a cache directory, its tensors, and its removal."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from gptkit.kinds.format import NativeModel, TensorEntry, Tensors

__all__ = ["TokenRows", "export_key", "keep_newest", "with_token_rows"]


@dataclass(frozen=True)
class TokenRows:
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
        """Shape and dtype of every tensor."""
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


def with_token_rows(model: NativeModel, size: int) -> NativeModel:
    """Return a model whose vocabulary has `size` tokens, those of its tokenizer, so that no other id can be generated."""
    tensors = TokenRows(model.tensors, model.spec.vocab_size or size, size)
    return replace(model, spec=model.spec.model_copy(update={"vocab_size": size}), tensors=tensors)


def export_key(model: NativeModel, *settings: object) -> str:
    """Return the hash of everything that an export depends on, 32 hexadecimal digits.

    The weights are read only if their checksum is unknown.

    Args:
        model: the model.
        settings: what else the export depends on: its version, its options.
    """
    parts = " ".join(map(str, settings))
    digest = hashlib.sha256(f"{parts} {model.family} {model.spec.model_dump_json()}".encode())
    if model.checksum is not None:
        digest.update(model.checksum.encode())
        return digest.hexdigest()[:32]
    for name, entry in sorted(model.tensors.entries.items()):
        digest.update(f"{name} {entry.shape} {entry.dtype}".encode())
        digest.update(model.tensors.get(name).detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def keep_newest(exports: Iterable[Path], keep: int) -> None:
    """Remove all but the most recently used exports, files or directories. Links are not followed.

    Args:
        exports: the exports, whose time of modification is that of their last use.
        keep: number of exports to keep.
    """
    for path in sorted(exports, key=lambda path: path.stat().st_mtime_ns)[:-keep]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
