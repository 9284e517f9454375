"""Writer of the shards of one side, which can be stopped at any moment and continued from its last state."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gptkit.core.atomic import writing
from gptkit.data.index import Counts, Shard
from gptkit.data.jobs import Chunk

__all__ = ["ShardWriter", "SideState"]

_PART = ".part"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class SideState:
    """What a writer has on the disk.

    Attributes:
        shards: the complete shards.
        open: the shard that is being written.
        begun: whether a document has begun whose first token is not written yet.
        counts: sizes of the whole side.
    """

    shards: tuple[Shard, ...] = ()
    open: Shard = field(default_factory=lambda: Shard("", 0, 0, 0))
    begun: bool = False
    counts: Counts = field(default_factory=lambda: Counts(0, 0, 0, 0, True))


class ShardWriter:
    """Writer of shards: each is written under temporary names, which are replaced by its own when it is complete.

    Shards end where a chunk ends, so they are equal however often the writer was stopped.

    Args:
        directory: the directory of the files.
        side: the name of the side.
        dtype: the type of the tokens.
        shard_tokens: number of tokens from which on a shard is complete.
        state: what an earlier writer has written; the files are shortened to it.

    Raises:
        FileError: a file cannot be written.
        ValueError: the files do not match the state.
    """

    def __init__(
        self,
        directory: Path,
        side: str,
        dtype: np.dtype[np.unsignedinteger],
        shard_tokens: int,
        state: SideState | None = None,
    ) -> None:
        self._directory, self._side, self._dtype, self._shard_tokens = directory, side, dtype, shard_tokens
        self._files: dict[str, BinaryIO] = {}
        self._hashes: dict[str, hashlib._Hash] = {}
        self.state = state or SideState()
        if state is None:
            self._next()
        else:
            self._restore(state)

    def append(self, chunk: Chunk) -> None:
        """Append the tokens of a job."""
        shard, counts = self.state.open, self.state.counts
        end = shard.tokens + len(chunk.tokens)
        starts = chunk.starts + shard.tokens
        if self.state.begun:
            starts = np.concatenate(([shard.tokens], starts))
        starts = np.unique(starts)  # empty documents are not counted
        begun = bool(len(starts)) and int(starts[-1]) == end
        starts = starts[:-1] if begun else starts
        masked = 0 if chunk.masked is None else int(chunk.masked.sum())
        self._write(".bin", chunk.tokens.astype(self._dtype, copy=False).tobytes())
        self._write(".documents.bin", starts.astype("<i8").tobytes())
        if masked and not shard.masked:
            for first in range(0, shard.tokens, _BLOCK):  # the tokens so far are not masked
                self._write(".mask.bin", bytes(min(_BLOCK, shard.tokens - first)))
        if masked or shard.masked:
            mask = np.zeros(len(chunk.tokens), np.bool_) if chunk.masked is None else chunk.masked
            self._write(".mask.bin", mask.tobytes())
        grown = replace(
            shard,
            tokens=end,
            documents=shard.documents + len(starts),
            bytes=shard.bytes + chunk.bytes,
            masked=shard.masked + masked,
        )
        total = Counts(
            counts.tokens + len(chunk.tokens),
            counts.documents + len(starts),
            counts.characters + chunk.characters,
            counts.bytes + chunk.bytes,
            bool(counts.restored) and chunk.restored,
            counts.masked + masked,
        )
        self.state = replace(self.state, open=grown, begun=begun, counts=total)

    @property
    def is_full(self) -> bool:
        """Whether the open shard has its number of tokens, so that `complete` should be called."""
        return self.state.open.tokens >= self._shard_tokens

    def flush(self) -> None:
        """Flush what is written to the disk, after which `state` describes it."""
        for name, file in self._files.items():
            with writing(self._directory / name):
                file.flush()
                os.fsync(file.fileno())

    def complete(self) -> None:
        """Complete the open shard and begin another. The temporary names are replaced by `settle`."""
        self.flush()
        self.close()
        sums = {name: digest.hexdigest() for name, digest in self._hashes.items()}
        shard = replace(self.state.open, sha256={name: sums[name] for name in self.state.open.files})
        self.state = replace(self.state, shards=(*self.state.shards, shard))
        self._next()

    def settle(self) -> None:
        """Give complete shards their own names. The state must have been recorded, or be complete."""
        for shard in self.state.shards:
            for name in shard.files:
                part = self._directory / (name + _PART)
                if part.exists():
                    with writing(self._directory / name):
                        part.replace(self._directory / name)

    def finish(self) -> None:
        """Give the shards their own names, and remove the files of the open one, which has no text."""
        self.close()
        self.settle()
        for path in self._directory.glob(f"{self._side}-*{_PART}"):
            path.unlink()

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def _next(self) -> None:
        name = f"{self._side}-{len(self.state.shards):05d}"
        self.state = replace(self.state, open=Shard(name, 0, 0, 0))
        self._files = {}
        self._hashes = {f"{name}{ending}": hashlib.sha256() for ending in (".bin", ".documents.bin")}

    def _write(self, ending: str, data: bytes) -> None:
        name = f"{self.state.open.name}{ending}"
        path = self._directory / (name + _PART)
        with writing(self._directory / name):
            if name not in self._files:
                self._files[name] = path.open("wb")
            self._files[name].write(data)
        self._hashes.setdefault(name, hashlib.sha256()).update(data)

    def _restore(self, state: SideState) -> None:
        """Shorten the files of the open shard to the state, and continue them."""
        self.settle()
        for shard in state.shards:
            for name, size in shard.sizes(self._dtype).items():
                if (self._directory / name).stat().st_size != size:
                    raise ValueError(f"{name} is incomplete")
        self._hashes = {f"{state.open.name}{ending}": hashlib.sha256() for ending in (".bin", ".documents.bin")}
        # A mask file that is not part of the state is begun again, when a token is masked.
        for name, size in state.open.sizes(self._dtype).items():
            path = self._directory / (name + _PART)
            if not size and not path.exists():
                continue
            if path.stat().st_size < size:
                raise ValueError(f"{path.name} is incomplete")
            with writing(path):
                file = path.open("r+b")
                file.truncate(size)
            digest = hashlib.sha256()
            while data := file.read(_BLOCK):
                digest.update(data)
            self._files[name], self._hashes[name] = file, digest
