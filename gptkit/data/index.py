"""Index of prepared tokens (`meta.json`): the shards with their sizes and checksums, and what they were made from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

__all__ = ["FORMAT", "META", "READABLE", "SIDES", "TOKENIZER", "Counts", "Index", "Shard", "parse_index"]

FORMAT = 3
READABLE = (1, 2, FORMAT)
"""Formats that can be opened. Formats 1 and 2 have one file for each side; format 1 has no masks."""

META = "meta.json"
TOKENIZER = "tokenizer"
"""Directory of the tokenizer, which `gptkit data prepare` stores with the tokens."""

SIDES: tuple[Literal["train", "validation"], ...] = ("train", "validation")
_NAME = re.compile(r"(train|validation)(-\d{5,9})?")
_DIGEST = re.compile(r"[0-9a-f]{64}")


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
class Shard:
    """Shard of one side: ``NAME.bin``, ``NAME.documents.bin`` and, if a token is masked, ``NAME.mask.bin``.

    Attributes:
        name: name of the shard, ``train-00000``.
        tokens: number of tokens.
        documents: number of documents that begin in the shard.
        bytes: number of UTF-8 bytes of its text.
        masked: number of tokens that are excluded from the loss.
        sha256: checksum of each file by its name.
    """

    name: str
    tokens: int
    documents: int
    bytes: int
    masked: int = 0
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the shard's files."""
        names = (f"{self.name}.bin", f"{self.name}.documents.bin")
        return (*names, f"{self.name}.mask.bin") if self.masked else names

    def sizes(self, dtype: np.dtype[Any]) -> dict[str, int]:
        """Return the size in bytes of each file."""
        sizes = (self.tokens * dtype.itemsize, self.documents * 8, self.tokens)
        return dict(zip(self.files, sizes, strict=False))


@dataclass(frozen=True)
class Index:
    """Content of `meta.json`.

    Attributes:
        fingerprint: fingerprint of corpus, split and tokenizer.
        corpus: fingerprint of the corpus; empty in earlier formats.
        tokenizer: fingerprint of the tokenizer.
        vocab_size: vocabulary size of the tokenizer.
        dtype: numpy dtype string of the tokens.
        data: the spec of the corpus as plain data.
        train, validation: sizes of the two sides.
        shards: the shards of each side, in their order; one without checksums in earlier formats.
        parts: number of training and of validation tokens up to the end of each part of a mixture; empty otherwise.
        tokenizer_spec: the spec of the tokenizer that is stored in the directory ``tokenizer``; None if none is.
        tokenizer_files: names of the files in that directory.
        format: number of the format.
    """

    fingerprint: str
    corpus: str
    tokenizer: str
    vocab_size: int
    dtype: str
    data: Mapping[str, Any]
    train: Counts
    validation: Counts
    shards: Mapping[str, Sequence[Shard]]
    parts: Sequence[tuple[int, int]] = ()
    tokenizer_spec: Mapping[str, Any] | None = None
    tokenizer_files: Sequence[str] = ()
    format: int = FORMAT

    def counts(self, side: Literal["train", "validation"]) -> Counts:
        """Return the size of a side."""
        return self.train if side == "train" else self.validation

    def text(self) -> str:
        """Return the index as JSON."""
        content = {
            "format": self.format,
            "fingerprint": self.fingerprint,
            "corpus": self.corpus,
            "tokenizer": self.tokenizer,
            "vocab_size": self.vocab_size,
            "dtype": self.dtype,
            "data": self.data,
            "parts": self.parts,
            "tokenizer_spec": self.tokenizer_spec,
            "tokenizer_files": self.tokenizer_files,
        }
        for side in SIDES:
            shards = [asdict(shard) for shard in self.shards[side]]
            content[side] = {**asdict(self.train if side == "train" else self.validation), "shards": shards}
        return json.dumps(content, indent=2) + "\n"


def parse_index(text: str) -> Index:
    """Return the index, or raise a `ValueError`, `KeyError` or `TypeError` that says what is wrong with it."""
    meta = json.loads(text)
    if not isinstance(meta, dict):
        raise ValueError("the index is not a JSON object")
    version = meta["format"]
    if version not in READABLE:
        raise ValueError(f"format {version}")
    dtype = np.dtype(meta["dtype"])
    if dtype.str not in ("<u2", "<u4"):
        raise ValueError(f"the type of the tokens is {dtype.str}")
    counts: dict[str, Counts] = {}
    shards: dict[str, list[Shard]] = {}
    for side in SIDES:
        entry = dict(meta[side])
        listed = entry.pop("shards", None) if version == FORMAT else []
        counts[side] = Counts(**entry)
        _require_sizes(counts[side].tokens, counts[side].documents, counts[side].masked)
        shards[side] = [_shard(shard, side) for shard in listed]
        if version == FORMAT:
            _require_sums(side, counts[side], shards[side])
    texts = [meta[key] for key in ("fingerprint", "tokenizer")] + [meta.get("corpus", "")]
    if not all(isinstance(value, str) for value in texts):
        raise ValueError("a fingerprint is not a text")
    _require_sizes(meta["vocab_size"])
    return Index(
        fingerprint=texts[0],
        corpus=texts[2],
        tokenizer=texts[1],
        vocab_size=meta["vocab_size"],
        dtype=dtype.str,
        data=dict(meta.get("data") or {}),
        train=counts["train"],
        validation=counts["validation"],
        shards=shards,
        parts=_parts(meta.get("parts", ()), counts),
        tokenizer_spec=meta.get("tokenizer_spec"),
        tokenizer_files=_names(meta.get("tokenizer_files", ())),
        format=version,
    )


def _shard(entry: Mapping[str, Any], side: str) -> Shard:
    shard = Shard(**entry)
    name = _NAME.fullmatch(shard.name)
    if name is None or name[1] != side:
        raise ValueError(f"a shard is named {shard.name!r}")
    _require_sizes(shard.tokens, shard.documents, shard.bytes, shard.masked)
    sums = shard.sha256
    if not isinstance(sums, dict) or set(sums) != set(shard.files) or not all(map(_DIGEST.fullmatch, sums.values())):
        raise ValueError(f"the checksums of {shard.name} are incomplete")
    return shard


def _names(names: Any) -> tuple[str, ...]:
    """Return names of files in one directory, which must not lead out of it."""
    if not all(isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0") for name in names):
        raise ValueError("a file of the tokenizer has no valid name")
    return tuple(names)


def _parts(ends: Any, counts: Mapping[str, Counts]) -> Sequence[tuple[int, int]]:
    parts = [(train, validation) for train, validation in ends]
    for number, side in enumerate(SIDES):
        column = [end[number] for end in parts]
        _require_sizes(*column)
        if parts and (column != sorted(column) or column[-1] != counts[side].tokens):
            raise ValueError(f"the parts do not add up to the {side} split")
    return parts


def _require_sizes(*sizes: Any) -> None:
    if not all(isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 62 for size in sizes):
        raise ValueError("a size is not a number")


def _require_sums(side: str, counts: Counts, shards: Sequence[Shard]) -> None:
    names = [shard.name for shard in shards]
    if len(set(names)) != len(names):
        raise ValueError("a shard is listed twice")
    for name in ("tokens", "documents", "masked", "bytes"):
        if sum(getattr(shard, name) for shard in shards) != getattr(counts, name):
            raise ValueError(f"the {name} of the {side} shards do not add up to those of the split")
