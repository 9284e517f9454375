"""Token files, read as memory maps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.core.errors import DataError
from gptkit.data.index import Shard
from gptkit.data.sharded import Array, joined

__all__ = ["TokenFile", "token_dtype"]


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """Return the smaller of uint16 and uint32 that can store every id, little-endian."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


@dataclass(frozen=True, eq=False)
class TokenFile:
    """Tokens of one side of the split.

    Attributes:
        tokens: (n_tokens,) ids, memory-mapped, in one shard or several.
        documents: for each shard the indices within it at which its documents begin, int64.
        masked: (n_tokens,) bool, memory-mapped: the tokens that are excluded from the loss; None if none are.
        offsets: index of the first token of each shard.
        directory: the directory of the files, for messages.
    """

    tokens: Array
    documents: tuple[NDArray[np.int64], ...]
    masked: Array | None = None
    offsets: tuple[int, ...] = (0,)
    directory: Path | None = None

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(n_documents,) int64, index of each document's first token. Read into memory if there are several shards.

        Raises:
            DataError: the indices are not ascending indices of tokens.
        """
        if len(self.documents) == 1:
            starts = self.documents[0]
        else:
            parts = [starts + offset for starts, offset in zip(self.documents, self.offsets, strict=True)]
            starts = np.concatenate(parts) if parts else np.empty(0, np.int64)
        if len(starts) and not (starts[0] >= 0 and starts[-1] < len(self.tokens) and (starts[1:] > starts[:-1]).all()):
            where = "" if self.directory is None else f"{self.directory}: "
            raise DataError(
                f"{where}the boundaries of documents in the prepared tokens are damaged",
                hint="Prepare the corpus again; `gptkit data check` names the damaged files.",
            )
        return starts

    @classmethod
    def open(cls, directory: Path, shards: list[Shard], dtype: np.dtype[np.unsignedinteger]) -> TokenFile:
        """Map the files of shards."""
        if not shards:
            return cls(np.empty(0, dtype), (np.empty(0, np.int64),))
        tokens = [_mapped(directory / f"{shard.name}.bin", dtype) for shard in shards]
        documents = [_mapped(directory / f"{shard.name}.documents.bin", np.dtype("<i8")) for shard in shards]
        masks: list[NDArray[Any]] = [
            _mapped(directory / f"{shard.name}.mask.bin", np.dtype(np.bool_))
            if shard.masked
            else np.broadcast_to(np.False_, (shard.tokens,))
            for shard in shards
        ]
        masked = joined(masks) if any(shard.masked for shard in shards) else None
        offsets = np.cumsum([0, *(shard.tokens for shard in shards[:-1])]).tolist()
        return cls(joined(tokens), tuple(documents), masked, tuple(offsets), directory)

    @classmethod
    def open_single(cls, directory: Path, name: str, dtype: np.dtype[np.unsignedinteger]) -> TokenFile:
        """Map the files of formats 1 and 2: ``name.bin``, ``name.documents.npy``, and ``name.mask.bin`` if there is one."""
        starts = np.asarray(np.load(directory / f"{name}.documents.npy", mmap_mode="r", allow_pickle=False))
        mask = directory / f"{name}.mask.bin"
        masked = _mapped(mask, np.dtype(np.bool_)) if mask.exists() else None
        return cls(_mapped(directory / f"{name}.bin", dtype), (starts,), masked, directory=directory)


def _mapped(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    if not path.stat().st_size:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    # As a plain array: slicing numpy's memmap class is several times slower.
    return np.asarray(np.memmap(path, dtype, mode="r"))
