"""Token files: written as a stream, read as a memory map."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gptkit.core.atomic import writing
from gptkit.core.errors import TokenizerError

__all__ = ["TokenFile", "TokenWriter", "token_dtype"]


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """Return the smaller of uint16 and uint32 that can store every id, little-endian."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


@dataclass(frozen=True, eq=False)
class TokenFile:
    """Tokens of one side of the split.

    Attributes:
        tokens: (n_tokens,) ids, memory-mapped.
        starts: (n_documents,) int64, index of each document's first token.
        masked: (n_tokens,) bool, memory-mapped: the tokens that are excluded from the loss; None if none are.
    """

    tokens: NDArray[np.unsignedinteger]
    starts: NDArray[np.int64]
    masked: NDArray[np.bool_] | None = None

    @classmethod
    def open(cls, directory: Path, name: str, dtype: np.dtype[np.unsignedinteger]) -> TokenFile:
        """Map ``name.bin``, ``name.documents.npy``, and ``name.mask.bin`` where there is one."""
        path = directory / f"{name}.bin"
        starts = np.load(directory / f"{name}.documents.npy", mmap_mode="r", allow_pickle=False)
        if not path.stat().st_size:  # an empty file cannot be mapped
            return cls(np.empty(0, dtype), np.asarray(starts))
        mask = directory / f"{name}.mask.bin"
        masked = np.asarray(np.memmap(mask, np.bool_, mode="r")) if mask.exists() else None
        # As a plain array: slicing numpy's memmap class is several times slower.
        return cls(np.asarray(np.memmap(path, dtype, mode="r")), np.asarray(starts), masked)


@dataclass
class TokenWriter:
    """Writer that appends documents to a token file.

    Its mask file has a byte for each token, and is written only if a token is masked.
    """

    path: Path
    dtype: np.dtype[np.unsignedinteger]
    vocab_size: int
    tokens: int = 0
    characters: int = 0
    bytes: int = 0
    masked: int = 0
    restored: bool = True
    starts: array[int] = field(default_factory=lambda: array("q"))
    _file: BinaryIO | None = None
    _mask: BinaryIO | None = None

    @property
    def documents(self) -> int:
        return len(self.starts)

    def begin(self) -> None:
        """Begin a document."""
        if not self.starts or self.starts[-1] < self.tokens:  # empty documents are not counted
            self.starts.append(self.tokens)

    @property
    def mask_path(self) -> Path:
        """The mask file."""
        return self.path.with_suffix(".mask.bin")

    def add(self, ids: Sequence[int], masked_N: NDArray[np.bool_] | None = None) -> None:
        """Append ids.

        Args:
            ids: N ids.
            masked_N: which of them are excluded from the loss; none by default.

        Raises:
            TokenizerError: an id is outside the vocabulary.
            FileError: the file cannot be written.
        """
        if not len(ids):
            return
        array_N = np.asarray(ids, dtype=np.int64)
        if array_N.min() < 0 or array_N.max() >= self.vocab_size:
            wrong = int(array_N.min()) if array_N.min() < 0 else int(array_N.max())
            raise TokenizerError(f"the tokenizer returned the id {wrong}, but its vocabulary has {self.vocab_size} tokens")
        with writing(self.path):
            if self._file is None:
                self._file = self.path.open("wb")
            self._file.write(array_N.astype(self.dtype).data)
        if masked_N is not None and masked_N.any():
            with writing(self.mask_path):
                if self._mask is None:
                    self._mask = self.mask_path.open("wb")
                self._mask.seek(self.tokens)  # what is skipped reads as zeros: not masked
                self._mask.write(masked_N.data)
            self.masked += int(masked_N.sum())
        self.tokens += len(array_N)

    def close(self) -> None:
        """Flush the files to disk, and write the document starts."""
        if self.starts and self.starts[-1] == self.tokens:
            self.starts.pop()
        with writing(self.path), self._file or self.path.open("wb") as file:
            file.flush()
            os.fsync(file.fileno())
        if self._mask is not None:
            with writing(self.mask_path), self._mask as file:
                file.truncate(self.tokens)
                file.flush()
                os.fsync(file.fileno())
        starts = self.path.with_suffix(".documents.npy")
        with writing(starts), starts.open("wb") as file:
            np.save(file, np.array(self.starts, np.int64), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())

    def abandon(self) -> None:
        """Close the files without completing them."""
        for file in (self._file, self._mask):
            if file is not None:
                file.close()
