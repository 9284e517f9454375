"""Preparation of a corpus: writes ``train.bin`` and ``validation.bin`` with their document boundaries and ``meta.json``.

The files are arrays of little-endian ids, with documents concatenated. Where documents are masked, ``train.mask.bin`` and
``validation.mask.bin`` have a byte for each token, 1 where it is excluded from the loss. The files are reused while the
corpus, the validation fraction and the tokenizer are unchanged.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gptkit.core.atomic import atomic_directory, reading, write_text
from gptkit.core.errors import DataError
from gptkit.data.encoding import Encoder
from gptkit.data.files import TokenFile, TokenWriter, token_dtype
from gptkit.data.fingerprint import tokenizer_fingerprint
from gptkit.data.split import Side, Split, plan_split, split_documents
from gptkit.data.windows import Batch, Windows
from gptkit.kinds.data import DataSpec, Document
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.text.base import END

__all__ = ["Counts", "Prepared", "Progress", "open_prepared", "ordered_windows", "prepare", "token_files"]

_log = logging.getLogger("gptkit")
_FORMAT = 2
_READABLE = (1, _FORMAT)
"""Formats that can be opened. Format 1 has no masks."""

_TOKENS = 1
"""Part of the fingerprint: changed when equal documents give other tokens or masks than in earlier versions."""

_META = "meta.json"
_ENDINGS = (".bin", ".documents.npy", ".mask.bin")
_FILES = (_META, *(f"{side}{ending}" for side in ("train", "validation") for ending in _ENDINGS))
_BATCH = 4 << 20
"""Number of characters encoded at once: enough to use a tokenizer's threads, and small compared to a model."""


@dataclass(frozen=True)
class Progress:
    """Progress of a preparation, in characters of the corpus."""

    done: int
    total: int
    tokens: int


@dataclass(frozen=True)
class Counts:
    """Size of one side of the split. `bytes` counts UTF-8 bytes, so that bits per byte are comparable between tokenizers."""

    tokens: int
    documents: int
    characters: int
    bytes: int
    restored: bool | None = None
    """Whether decoding the tokens restores the text; None if that is unknown."""

    masked: int = 0
    """Number of tokens that are excluded from the loss."""


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
    """

    directory: Path
    fingerprint: str
    tokenizer: str
    vocab_size: int
    dtype: str
    train_counts: Counts
    validation_counts: Counts

    @cached_property
    def train(self) -> TokenFile:
        """The training tokens."""
        return TokenFile.open(self.directory, "train", np.dtype(self.dtype))

    @cached_property
    def validation(self) -> TokenFile:
        """The validation tokens; empty if nothing was held out."""
        return TokenFile.open(self.directory, "validation", np.dtype(self.dtype))

    def train_windows(self, data: DataSpec, context_length: int) -> Windows:
        """Return the data windows of the training tokens, as configured by `data`.

        Raises:
            DataError: the corpus is shorter than one data window.
        """
        return Windows(
            self.train.tokens,
            context_length,
            stride=data.stride,
            order=data.windows,
            shuffle=data.shuffle,
            document_starts=self.train.starts if data.document_mask else None,
            masked=self.train.masked,
            what="the training split of the corpus",
        )

    def validation_batches(
        self, data: DataSpec, context_length: int, batch_size: int, max_batches: int | None = None
    ) -> Iterator[Batch]:
        """Iterate over the validation tokens in a fixed order; see `Windows.batches`.

        A validation split shorter than a data window gives one shorter data window; fewer than two tokens give none.
        """
        windows = ordered_windows(self.validation, data, context_length)
        return iter(()) if windows is None else windows.batches(batch_size, max_batches)


def ordered_windows(file: TokenFile, data: DataSpec, context_length: int) -> Windows | None:
    """Return the data windows of tokens in their order, in which every token but the first is a target once.

    Tokens that do not fill a data window give one shorter data window; fewer than two give None.
    """
    length = min(context_length, len(file.tokens) - 1)
    if length < 1:
        return None
    return Windows(file.tokens, length, document_starts=file.starts if data.document_mask else None, masked=file.masked)


def prepare(
    data: DataSpec,
    tokenizer: Tokenizer,
    directory: Path,
    base: Path,
    *,
    split: Split | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Prepared:
    """Tokenize a corpus into `directory`, or reuse the files there if they are current.

    Memory use is bounded by a few megabytes of text and eight bytes per document. The directory is replaced atomically: an
    interrupted preparation keeps the previous files.

    Args:
        data: the corpus.
        tokenizer: encodes the texts.
        directory: directory of the files; replaced if they belong to another corpus, split or tokenizer.
        base: directory that relative paths of `data` are resolved against.
        split: result of `plan_split`, to avoid reading the corpus again.
        progress: called after every few megabytes.

    Raises:
        DataError: the corpus is missing, empty, unreadable, or changes meanwhile; or the directory holds other things.
        FileError: the tokens cannot be written.
        TokenizerError: the tokenizer rejects a text; the message names its source.
    """
    tokenizer_digest = tokenizer_fingerprint(tokenizer)
    facts = (_TOKENS, data.fingerprint(base), data.validation, tokenizer_digest)
    fingerprint = hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()
    try:
        existing = open_prepared(directory)
    except DataError:
        pass
    else:
        if existing.fingerprint == fingerprint:
            return existing
    if directory.exists() and not (directory.is_dir() and set(directory.iterdir()) <= set(token_files(directory))):
        raise DataError(
            f"{directory} contains files other than prepared tokens, so it is not replaced",
            hint="Move them, or choose a directory that does not exist yet.",
        )
    split = split or plan_split(data, base)
    with atomic_directory(directory) as new:
        vocab_size = tokenizer.vocab_size
        dtype = token_dtype(vocab_size)
        writers: dict[Side, TokenWriter] = {
            "train": TokenWriter(new / "train.bin", dtype, vocab_size),
            "validation": TokenWriter(new / "validation.bin", dtype, vocab_size),
        }
        try:
            _write(data, tokenizer, base, split, writers, progress)
            for writer in writers.values():
                writer.close()
        finally:
            for writer in writers.values():
                writer.abandon()
        counts = {str(side): _counts(writer) for side, writer in writers.items()}
        if data.validation and counts["validation"].tokens < 2:
            raise DataError(
                f"the validation split has {counts['validation'].tokens} tokens, too few to compute a loss",
                hint=f"Use more text, or set `validation` higher than {data.validation}, or to 0.",
            )
        for side, count in counts.items():
            if count.masked and count.tokens - count.masked < 2:
                raise DataError(
                    f"all but {count.tokens - count.masked} of the {count.tokens} tokens of the {side} split are masked, "
                    "too many to compute a loss",
                    hint="Use documents with more text that is not masked.",
                )
        meta = {
            "format": _FORMAT,
            "fingerprint": fingerprint,
            "tokenizer": tokenizer_digest,
            "vocab_size": vocab_size,
            "dtype": dtype.str,
            "data": data.model_dump(mode="json"),
            **{side: asdict(count) for side, count in counts.items()},
        }
        write_text(new / _META, json.dumps(meta, indent=2) + "\n")
    return open_prepared(directory)


def token_files(directory: Path) -> list[Path]:
    """Return the files of a directory that `prepare` wrote.

    Other programs write a ``train.bin`` too, but without document boundaries and ``meta.json``.
    """
    if directory.is_symlink() or not all((directory / name).is_file() for name in (_META, "train.documents.npy")):
        return []
    return [directory / name for name in _FILES if (directory / name).is_file()]


def open_prepared(directory: Path) -> Prepared:
    """Return the tokens that `prepare` wrote.

    Raises:
        DataError: the directory has no prepared tokens, or they are damaged.
        FileError: a file may not be read.
    """
    with reading(directory / _META):
        return _open_prepared(directory)


def _open_prepared(directory: Path) -> Prepared:
    try:
        meta: dict[str, Any] = json.loads((directory / _META).read_text(encoding="utf-8"))
        if meta["format"] not in _READABLE:
            raise ValueError(f"format {meta['format']}")
        prepared = Prepared(
            directory,
            meta["fingerprint"],
            meta["tokenizer"],
            meta["vocab_size"],
            meta["dtype"],
            Counts(**meta["train"]),
            Counts(**meta["validation"]),
        )
        for side, counts in (("train", prepared.train_counts), ("validation", prepared.validation_counts)):
            size = (directory / f"{side}.bin").stat().st_size
            if size != counts.tokens * np.dtype(prepared.dtype).itemsize:
                raise ValueError(f"{side}.bin has {size} bytes")
            if counts.masked and (size := (directory / f"{side}.mask.bin").stat().st_size) != counts.tokens:
                raise ValueError(f"{side}.mask.bin has {size} bytes")
            starts = np.load(directory / f"{side}.documents.npy", mmap_mode="r", allow_pickle=False)
            if starts.shape != (counts.documents,) or starts.dtype != np.int64:
                raise ValueError(f"{side}.documents.npy has the shape {starts.shape} and the type {starts.dtype}")
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        what = "prepared tokens not found" if missing == _META else f"the prepared tokens are incomplete: no {missing}"
        raise DataError(f"{directory}: {what}") from None
    except PermissionError:
        raise
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{directory}: the prepared tokens are damaged: {error}", hint="Delete the directory.") from None
    return prepared


def _write(
    data: DataSpec,
    tokenizer: Tokenizer,
    base: Path,
    split: Split,
    writers: dict[Side, TokenWriter],
    progress: Callable[[Progress], None] | None,
) -> None:
    start, end = tokenizer.start_id, tokenizer.end_id
    if start == end:  # one token between two documents serves as both
        start = None
    opens: dict[Side, bool] = {"train": True, "validation": True}
    # What corpora separate texts by, and this tokenizer does too.
    suspicious = {END, *(token for token, number in tokenizer.special_tokens.items() if number in (start, end))}
    encode = Encoder(tokenizer)
    done = 0

    def write(batch: list[tuple[Side, Document]]) -> None:
        nonlocal done
        for (side, document), (ids, masked) in zip(batch, encode([document for _, document in batch]), strict=True):
            writer = writers[side]
            if opens[side]:
                writer.begin()
                # A chat template puts its own tokens at the beginning and the end.
                writer.add([] if start is None or document.messages is not None else [start])
            writer.add(ids, masked)
            writer.restored = writer.restored and (tokenizer.lossless or tokenizer.decode(ids) == document.text)
            plain = document.messages is None
            spelled = next((token for token in suspicious if plain and token in document.text), None)
            if spelled is not None:
                suspicious.clear()
                _log.warning(
                    "%s contains %s, which is read as ordinary characters; set data.separator to %s if it separates texts",
                    document.source,
                    spelled,
                    spelled,
                )
            writer.add([end] if document.ends and end is not None and document.messages is None else [])
            opens[side] = document.ends
            writer.characters += len(document.text)
            writer.bytes += len(document.text.encode("utf-8", "surrogatepass"))
            done += len(document.text)
        if progress is not None:
            progress(Progress(done, split.characters, sum(writer.tokens for writer in writers.values())))

    batch: list[tuple[Side, Document]] = []
    size = 0
    for side, document in split_documents(data, base, split):
        batch.append((side, document))
        size += len(document.text) + 64  # so that many tiny documents fill a batch too
        if size >= _BATCH:
            write(batch)
            batch, size = [], 0
    write(batch)


def _counts(writer: TokenWriter) -> Counts:
    return Counts(writer.tokens, writer.documents, writer.characters, writer.bytes, writer.restored, writer.masked)
