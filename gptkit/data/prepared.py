"""Prepared tokens: opened, verified, and divided into data windows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gptkit.core.atomic import atomic_directory, reading, write_text
from gptkit.core.errors import DataError
from gptkit.data.files import TokenFile
from gptkit.data.index import FORMAT, META, SIDES, TOKENIZER, Counts, Index, Shard, parse_index

if TYPE_CHECKING:
    from gptkit.data.mixing import MixedWindows
    from gptkit.data.packing import PackedWindows
    from gptkit.data.windows import Batch, Windows
    from gptkit.kinds.data import DataSpec

__all__ = ["Prepared", "damaged_files", "open_prepared", "ordered_windows", "refer", "token_files", "unindexed_files"]

_REFERENCE = "directory"
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
"""Errors of reading a damaged index."""

_SINGLE = tuple(f"{side}{ending}" for side in SIDES for ending in (".bin", ".documents.npy", ".mask.bin"))


@dataclass(frozen=True)
class Prepared:
    """Prepared token files.

    Attributes:
        directory: the directory of the files.
        fingerprint: fingerprint of corpus, split and tokenizer.
        tokenizer: fingerprint of the tokenizer.
        vocab_size: vocabulary size of the tokenizer.
        dtype: numpy dtype string of the files.
        train_counts, validation_counts: sizes of the two sides.
        index: the index of the files.
    """

    directory: Path
    fingerprint: str
    tokenizer: str
    vocab_size: int
    dtype: str
    train_counts: Counts
    validation_counts: Counts
    index: Index = field(compare=False, repr=False)

    @cached_property
    def train(self) -> TokenFile:
        """The training tokens."""
        return self._side("train")

    @cached_property
    def validation(self) -> TokenFile:
        """The validation tokens; empty if nothing was held out."""
        return self._side("validation")

    def _side(self, side: str) -> TokenFile:
        dtype = np.dtype(self.dtype)
        if self.index.format != FORMAT:
            return TokenFile.open_single(self.directory, side, dtype)
        return TokenFile.open(self.directory, list(self.index.shards[side]), dtype)

    @property
    def shards(self) -> list[Shard]:
        """All shards, those of the training tokens first; none in formats 1 and 2."""
        return [shard for side in SIDES for shard in self.index.shards[side]]

    def train_windows(self, data: DataSpec, context_length: int) -> Windows | PackedWindows | MixedWindows:
        """Return the data windows of the training tokens, as configured by `data`.

        Raises:
            DataError: the corpus is shorter than one data window.
        """
        parts = self._parts(data, "train")
        if not parts:
            return _windows(self.train, data, context_length, "the training split of the corpus")
        from gptkit.data.mixing import MixedWindows

        windows = [
            _windows(part, data, context_length, f"the training split of the source {name}") for name, part in parts.items()
        ]
        return MixedWindows(windows, data.part_shares([len(part.tokens) for part in parts.values()]), list(parts))

    def validation_parts(self, data: DataSpec) -> dict[str, TokenFile]:
        """Return the validation tokens of each part of a mixture, by its name; empty if `data` is none."""
        return self._parts(data, "validation")

    def _parts(self, data: DataSpec, side: str) -> dict[str, TokenFile]:
        names = [name for name, _ in data.parts()]
        if not names:
            return {}
        from gptkit.data.mixing import part_of

        file = self.train if side == "train" else self.validation
        ends = [end[side != "train"] for end in self.index.parts] or [len(file.tokens)]
        if len(ends) != len(names):
            raise DataError(f"{self.directory}: the tokens are not those of this mixture", hint="Prepare the corpus again.")
        begins = [0, *ends[:-1]]
        return {name: part_of(file, *limits) for name, *limits in zip(names, begins, ends, strict=True)}

    def validation_batches(
        self, data: DataSpec, context_length: int, batch_size: int, max_batches: int | None = None
    ) -> Iterator[Batch]:
        """Iterate over the validation tokens in a fixed order; see `Windows.batches`.

        A validation split shorter than a data window gives one shorter data window; fewer than two tokens give none.
        """
        windows = ordered_windows(self.validation, data, context_length)
        return iter(()) if windows is None else windows.batches(batch_size, max_batches)


def _windows(file: TokenFile, data: DataSpec, context_length: int, what: str) -> Windows | PackedWindows:
    from gptkit.data.packing import PackedWindows
    from gptkit.data.windows import Windows

    if data.windows == "packed":
        return PackedWindows(file, context_length, shuffle=data.shuffle, what=what)
    return Windows(
        file.tokens,
        context_length,
        stride=data.stride,
        order=data.windows,
        shuffle=data.shuffle,
        document_starts=file.starts if data.document_mask else None,
        masked=file.masked,
        what=what,
    )


def ordered_windows(file: TokenFile, data: DataSpec, context_length: int) -> Windows | None:
    """Return the data windows of tokens in their order, in which every token but the first is a target once.

    Tokens that do not fill a data window give one shorter data window; fewer than two give None.
    """
    from gptkit.data.windows import Windows

    length = min(context_length, len(file.tokens) - 1)
    if length < 1:
        return None
    return Windows(file.tokens, length, document_starts=file.starts if data.masks_documents else None, masked=file.masked)


def open_prepared(directory: Path) -> Prepared:
    """Return the tokens that `prepare` wrote, or those that the directory refers to.

    Raises:
        DataError: the directory has no prepared tokens, or they are damaged.
        FileError: a file may not be read.
    """
    with reading(directory / META):
        return _open(directory)


def refer(directory: Path, prepared: Prepared) -> None:
    """Make a directory refer to tokens elsewhere, so that a run uses them without a copy.

    Raises:
        FileError: the directory cannot be written.
    """
    content = {"format": FORMAT, _REFERENCE: str(prepared.directory.absolute()), "fingerprint": prepared.fingerprint}
    with atomic_directory(directory) as new:
        write_text(new / META, json.dumps(content, indent=2) + "\n")


def token_files(directory: Path) -> list[Path]:
    """Return the files of a directory that `prepare` wrote.

    Other programs write a ``train.bin`` too, but without an index or document boundaries.
    """
    path = directory / META
    if directory.is_symlink() or not path.is_file():
        return []
    if (directory / "train.documents.npy").is_file():
        return [directory / name for name in (META, *_SINGLE) if (directory / name).is_file()]
    try:
        text = path.read_text(encoding="utf-8")
        if _referred(text) is not None:
            return [path]
        index = parse_index(text)
    except (OSError, *_DAMAGED):
        own = unindexed_files(directory)
        return [path, *own] if own else []
    files = [directory / name for side in SIDES for shard in index.shards[side] for name in shard.files]
    files += [directory / TOKENIZER / name for name in index.tokenizer_files]
    return [path, *(file for file in files if file.is_file())]


def damaged_files(prepared: Prepared, progress: Callable[[int, int], None] | None = None) -> list[tuple[str, str]]:
    """Compare the checksum of every file; return the name of each damaged one, and what is wrong with it.

    Args:
        prepared: the tokens; formats 1 and 2 have no checksums.
        progress: receives the number of bytes read and the total.
    """
    dtype = np.dtype(prepared.dtype)
    total = sum(size for shard in prepared.shards for size in shard.sizes(dtype).values())
    result, done = [], 0
    for shard in prepared.shards:
        for name, size in shard.sizes(dtype).items():
            digest = hashlib.sha256()
            try:
                with (prepared.directory / name).open("rb") as file:
                    while data := file.read(1 << 20):
                        digest.update(data)
                        done += len(data)
                        if progress is not None:
                            progress(done, total)
            except OSError as error:
                result.append((name, error.strerror or str(error)))
                continue
            if digest.hexdigest() != shard.sha256[name]:
                result.append((name, f"the checksum of its {size:,} bytes differs"))
    return result


def unindexed_files(directory: Path) -> list[Path]:
    """Return the files named as shards with document boundaries are, in a directory whose index is damaged or missing.

    Without an index, their names alone do not show that gptkit wrote them; in the directory of a run, they are its own.
    """
    if directory.is_symlink():
        return []
    own = [entry.name.removesuffix(".documents.bin") for entry in directory.glob("*-[0-9]*.documents.bin")]
    shards = [Shard(name, 0, 0, 0, masked=1) for name in own if name.startswith(SIDES)]
    return [file for shard in shards for name in shard.files if (file := directory / name).is_file()]


def _referred(text: str) -> tuple[Path, str] | None:
    """Return directory and fingerprint of the tokens that an index refers to; None if it does not."""
    meta: Any = json.loads(text)
    if not isinstance(meta, dict) or _REFERENCE not in meta:
        return None
    return Path(meta[_REFERENCE]), str(meta["fingerprint"])


def _open(directory: Path) -> Prepared:
    try:
        text = (directory / META).read_text(encoding="utf-8")
        reference = _referred(text)
        if reference is None:
            index = parse_index(text)
            _require_files(directory, index)
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        what = "prepared tokens not found" if missing == META else f"the prepared tokens are incomplete: no {missing}"
        raise DataError(f"{directory}: {what}") from None
    except PermissionError:
        raise
    except (OSError, EOFError, *_DAMAGED) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{directory}: the prepared tokens are damaged: {what}", hint="Delete the directory.") from None
    if reference is not None:
        return _open_referred(directory, *reference)
    return Prepared(
        directory,
        index.fingerprint,
        index.tokenizer,
        index.vocab_size,
        index.dtype,
        index.train,
        index.validation,
        index,
    )


def _open_referred(directory: Path, other: Path, fingerprint: str) -> Prepared:
    hint = "Restore them, or prepare them again with `gptkit data prepare`."
    try:
        if json.loads((other / META).read_text(encoding="utf-8")).get(_REFERENCE) is not None:
            raise DataError(f"{directory} refers to {other}, which refers to other tokens", hint=hint)
        prepared = open_prepared(other)
    except (OSError, DataError, *_DAMAGED) as error:
        what = error.message if isinstance(error, DataError) else f"{other}: prepared tokens not found"
        raise DataError(f"{directory} refers to tokens elsewhere: {what}", hint=hint) from None
    if prepared.fingerprint != fingerprint:
        raise DataError(f"{directory} refers to the tokens of {other}, which have been replaced by others", hint=hint)
    return prepared


def _require_files(directory: Path, index: Index) -> None:
    """Raise an error if a file is missing or has another size."""
    dtype = np.dtype(index.dtype)
    for side in SIDES:
        if index.format == FORMAT:
            sizes = [item for shard in index.shards[side] for item in shard.sizes(dtype).items()]
        else:
            counts = index.counts(side)
            sizes = [(f"{side}.bin", counts.tokens * dtype.itemsize)]
            sizes += [(f"{side}.mask.bin", counts.tokens)] if counts.masked else []
            starts = np.load(directory / f"{side}.documents.npy", mmap_mode="r", allow_pickle=False)
            if starts.shape != (counts.documents,) or starts.dtype != np.int64:
                raise ValueError(f"{side}.documents.npy has the shape {starts.shape} and the type {starts.dtype}")
        for name, expected in sizes:
            if (size := (directory / name).stat().st_size) != expected:
                raise ValueError(f"{name} has {size} bytes, not {expected}")
