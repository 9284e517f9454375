"""Corpora of specs: their tokenizers, and tokens that were prepared before a training. Does not use torch."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from gptkit.core.atomic import atomic_directory
from gptkit.core.errors import DataError, GptkitError, TokenizerError
from gptkit.core.paths import cut_name
from gptkit.data.fingerprint import tokenizer_fingerprint
from gptkit.data.index import TOKENIZER
from gptkit.data.journal import work_directory
from gptkit.data.preparation import SHARD_TOKENS, Progress, prepare
from gptkit.data.prepared import Prepared, open_prepared
from gptkit.data.split import corpus_texts
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.runs.opening import Opened

__all__ = ["find_prepared", "fit_tokenizer", "kept_tokenizers", "prepare_corpus", "prepared_directory", "stored_tokenizer"]


def fit_tokenizer(opened: Opened) -> Tokenizer:
    """Return the spec's tokenizer, trained on its corpus if it is trainable."""
    spec = opened.spec
    stored = stored_tokenizer(opened)
    if stored is not None:
        return stored
    texts = corpus_texts(spec.data, opened.base) if spec.tokenizer.needs_corpus else iter(())
    return spec.tokenizer.fit(texts, base=opened.base)


def prepared_directory(opened: Opened) -> Path:
    """Return the directory in which the tokens of a spec are prepared, unless another is given.

    It is in `opened.prepared`, or in `prepared` in the base directory, as for `gptkit data prepare`. Its name depends on
    corpus, split and tokenizer, so that different corpora of a name do not replace each other.

    Raises:
        DataError: the corpus is missing, or consists of prepared tokens.
    """
    spec = opened.spec
    named = spec.data.token_directory(opened.base)
    if named is not None:
        raise DataError(f"the data of the spec are prepared tokens already: {named}", hint="Train with the spec.")
    digest = hashlib.blake2b(json.dumps(_facts(opened)).encode(), digest_size=4).hexdigest()
    if opened.prepared is not None:
        return opened.prepared / digest
    name = "".join(character if character.isalnum() or character in "-_." else "-" for character in spec.name)
    return opened.base / "prepared" / f"{cut_name(name.lstrip('.')[:80])}-{digest}"


def _facts(opened: Opened) -> Sequence[object]:
    """Return what a trained tokenizer and the tokens of a spec depend on."""
    spec = opened.spec
    return (spec.data.fingerprint(opened.base), spec.data.validation, spec.tokenizer.model_dump(mode="json"))


def find_prepared(opened: Opened) -> Prepared | None:
    """Return the tokens that were prepared for the spec, if there are any: those that its data names, or by `gptkit data`.

    Raises:
        DataError: the corpus is missing, or the tokens that its data names.
    """
    named = opened.spec.data.token_directory(opened.base)
    if named is not None:
        return open_prepared(named)
    for parent in (None, opened.prepared):
        if not (parent or opened.base / "prepared").is_dir():
            continue
        directory = prepared_directory(replace(opened, prepared=parent))
        if not directory.is_dir():
            continue
        prepared = open_prepared(directory)
        if prepared.index.corpus == opened.spec.data.fingerprint(opened.base):
            return prepared
    return None


def stored_tokenizer(opened: Opened) -> Tokenizer | None:
    """Return the tokenizer that is stored with prepared tokens, if it is that of the spec.

    A tokenizer that is read from files is compared with them, if they are on this machine: they may have changed since the
    preparation.

    Raises:
        TokenizerError: its files are damaged.
    """
    try:
        prepared = find_prepared(opened)
    except DataError:
        return None
    spec = opened.spec.tokenizer
    if prepared is None or prepared.index.tokenizer_spec != spec.model_dump(mode="json"):
        return None
    tokenizer = spec.load(prepared.directory / TOKENIZER)
    if tokenizer_fingerprint(tokenizer) != prepared.tokenizer:
        return None
    current = None if spec.needs_corpus else _local(opened)
    return tokenizer if current is None or tokenizer_fingerprint(current) == prepared.tokenizer else None


def _local(opened: Opened) -> Tokenizer | None:
    """Return the tokenizer of a spec that is not trained; None if its files are not on this machine."""
    spec = opened.spec.tokenizer
    if spec.missing(opened.base) is not None:
        return None
    try:
        return spec.fit(iter(()), base=opened.base)
    except GptkitError:
        return None


def prepare_corpus(
    opened: Opened,
    directory: Path,
    *,
    workers: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    progress: Callable[[Progress], None] | None = None,
) -> Prepared:
    """Prepare the corpus of a spec, and store its tokenizer with the tokens; see `gptkit.data.prepare`.

    A tokenizer that is trained is kept beside the directory until the tokens are complete, so that the next call continues
    with it after an interruption.

    Raises:
        GptkitError: as for `prepare`; or the tokenizer is unavailable.
    """
    spec = opened.spec
    tokenizer = _kept_tokenizer(opened, directory) if spec.tokenizer.needs_corpus else fit_tokenizer(opened)
    try:
        prepared = prepare(
            spec.data,
            tokenizer,
            directory,
            opened.base,
            progress=progress,
            workers=workers,
            shard_tokens=shard_tokens,
            store=spec.tokenizer,
        )
    except (DataError, TokenizerError):
        if not work_directory(directory).exists():  # nothing to continue
            _remove_kept(directory)
        raise
    _remove_kept(directory)
    return prepared


def kept_tokenizers(directory: Path) -> list[Path]:
    """Return the directories of tokenizers that interrupted preparations of a directory have trained."""
    path = directory.absolute()
    pattern = re.compile(rf"\.{re.escape(path.name)}\.tokenizer-[0-9a-f]{{32}}")
    try:
        return [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name) and entry.is_dir()]
    except OSError:
        return []


def _remove_kept(directory: Path) -> None:
    for kept in kept_tokenizers(directory):
        shutil.rmtree(kept, ignore_errors=True)


def _kept_tokenizer(opened: Opened, directory: Path) -> Tokenizer:
    """Return the tokenizer that an interrupted preparation of the directory has trained; else train it, and keep it."""
    spec = opened.spec
    digest = hashlib.blake2b(json.dumps(_facts(opened)).encode(), digest_size=16).hexdigest()
    path = directory.absolute()
    kept = path.with_name(f".{path.name}.tokenizer-{digest}")
    if kept.is_dir():
        try:
            return spec.tokenizer.load(kept)
        except (GptkitError, OSError):
            pass  # damaged
    tokenizer = fit_tokenizer(opened)
    with atomic_directory(kept) as new:
        tokenizer.save(new)
    return tokenizer
