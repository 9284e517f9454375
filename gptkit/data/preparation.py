"""Preparation of a corpus: tokens in shards with checksums, encoded in one process or several.

Each side of the split is written in shards of consecutive documents: ``train-00000.bin`` with little-endian ids,
``train-00000.documents.bin`` with the index of each document's first token in the shard (int64), and where documents are
masked ``train-00000.mask.bin`` with a byte for each token, 1 where it is excluded from the loss. ``meta.json`` is the index.
The files are a function of corpus, split, tokenizer and the size of the shards. They are reused while these are unchanged.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptkit.core.atomic import replace_directory, write_text
from gptkit.core.errors import DataError
from gptkit.core.lock import Lock
from gptkit.data.files import token_dtype
from gptkit.data.fingerprint import tokenizer_fingerprint
from gptkit.data.index import META, TOKENIZER, Index
from gptkit.data.jobs import Encoded, Job, JobEncoder, jobs
from gptkit.data.journal import Journal, State, own_files, work_directory
from gptkit.data.prepared import Prepared, open_prepared, refer, token_files, unindexed_files
from gptkit.data.split import Side, Split, plan_split
from gptkit.data.worker import encode_in_processes, portable
from gptkit.data.writing import ShardWriter
from gptkit.kinds.data import DataSpec
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec

__all__ = ["SHARD_TOKENS", "Progress", "corpus_fingerprint", "cpu_cores", "prepare"]

_log = logging.getLogger("gptkit")

_TOKENS = 1
"""Part of the fingerprint: changed when equal documents give other tokens or masks than in earlier versions."""

SHARD_TOKENS = 100_000_000
"""Number of tokens of a shard, by default."""

_BATCH = 1 << 20
"""Number of characters encoded at once: enough to keep a process busy, and small compared to its memory."""

_ALONE = 16 << 20
"""Number of characters below which starting processes takes longer than it saves."""

_SIDES: tuple[Side, ...] = ("train", "validation")


@dataclass(frozen=True)
class Progress:
    """Progress of a preparation, in characters of the corpus; `total` is 0 while the split is being decided."""

    done: int
    total: int
    tokens: int


def prepare(
    data: DataSpec,
    tokenizer: Tokenizer,
    directory: Path,
    base: Path,
    *,
    split: Split | None = None,
    progress: Callable[[Progress], None] | None = None,
    workers: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    store: TokenizerSpec | None = None,
    of_run: bool = False,
) -> Prepared:
    """Tokenize a corpus into `directory`, or reuse the files there if they are current.

    Memory use is bounded by a few megabytes of text for each process and a byte per document. The directory is replaced
    atomically: an interrupted preparation keeps the previous files. What it has written is kept beside the directory, and
    the next call continues there; the result is the same, with any number of processes.

    Args:
        data: the corpus.
        tokenizer: encodes the texts.
        directory: directory of the files; replaced if they belong to another corpus, split or tokenizer.
        base: directory that relative paths of `data` are resolved against.
        split: result of `plan_split`, to avoid reading the corpus again.
        progress: called after every megabyte or so.
        workers: number of processes that encode; by default one for each CPU core, or none if the corpus is small. A
            tokenizer that cannot be sent to another process encodes in this one.
        shard_tokens: number of tokens of a shard.
        store: the tokenizer's spec, to store the tokenizer with the tokens.
        of_run: whether the directory is that of a run, where tokens are replaced if their index is missing, too.

    Raises:
        DataError: the corpus is missing, empty, unreadable, or changes meanwhile; or the directory holds other things.
        FileError: the tokens cannot be written.
        TokenizerError: the tokenizer rejects a text; the message names its source.
    """
    tokenizer_digest = tokenizer_fingerprint(tokenizer)
    named = data.token_directory(base)
    if named is not None:
        return _use(open_prepared(named), tokenizer_digest, directory, of_run=of_run)
    corpus: object = data.fingerprint(base)
    if not isinstance(corpus, str):
        method = f"{type(data).__module__}.{type(data).__qualname__}.fingerprint"
        raise DataError(
            f"data {data.name!r}: {method} returned {type(corpus).__name__}, not str",
            hint="Return a text that changes with the documents.",
        )
    fingerprint = corpus_fingerprint(corpus, data, tokenizer_digest)
    try:
        existing = open_prepared(directory)
    except DataError:
        pass
    else:
        if existing.fingerprint == fingerprint and (store is None or existing.index.tokenizer_spec is not None):
            return existing
    _require_replaceable(directory, of_run=of_run)
    work = work_directory(directory)
    _require_own(work, directory)
    with ExitStack() as stack:
        stack.enter_context(Lock(work / Journal.LOCK))
        stack.callback(_remove_unless_continued, work)
        if not _is_complete(work, fingerprint):
            journal = Journal(work, {"fingerprint": fingerprint, "shard_tokens": shard_tokens, "stored": store is not None})
            state, writers = _begin(journal, work, token_dtype(tokenizer.vocab_size), shard_tokens)
            for writer in writers.values():
                stack.callback(writer.close)
            if state.split is None:
                reading = None if progress is None else (lambda read: progress(Progress(read, 0, 0)))
                state = State(split or plan_split(data, base, reading))
            journal.write_if_due(state, writers)
            state = _write(data, tokenizer, base, state, writers, journal, progress, workers)
            if data.fingerprint(base) != corpus:
                journal.restart()
                raise DataError("the corpus changed while it was read", hint="Retry when its files stop changing.")
            _finish(journal, state, writers)
            _require_enough(data, writers, journal)
            saved: tuple[str, ...] = ()
            if store is not None:
                (work / TOKENIZER).mkdir(exist_ok=True)
                tokenizer.save(work / TOKENIZER)
                saved = tuple(sorted(path.name for path in (work / TOKENIZER).iterdir()))
            index = Index(
                fingerprint=fingerprint,
                corpus=corpus,
                tokenizer=tokenizer_digest,
                vocab_size=tokenizer.vocab_size,
                dtype=token_dtype(tokenizer.vocab_size).str,
                data=data.model_dump(mode="json"),
                train=writers["train"].state.counts,
                validation=writers["validation"].state.counts,
                shards={side: writer.state.shards for side, writer in writers.items()},
                parts=state.ends if len(state.ends) > 1 else (),
                tokenizer_spec=None if store is None else store.model_dump(mode="json"),
                tokenizer_files=saved,
            )
            write_text(work / META, index.text())
        for name in Journal.FILES:
            (work / name).unlink(missing_ok=True)
        replace_directory(work, directory)
    return open_prepared(directory)


def corpus_fingerprint(corpus: str, data: DataSpec, tokenizer: str) -> str:
    """Return the fingerprint of prepared tokens.

    Args:
        corpus: fingerprint of the corpus.
        data: the spec of the corpus.
        tokenizer: fingerprint of the tokenizer.
    """
    facts = (_TOKENS, corpus, data.validation, tokenizer)
    return hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()


def cpu_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _use(prepared: Prepared, tokenizer: str, directory: Path, *, of_run: bool) -> Prepared:
    """Let a directory refer to tokens that the data of a spec name."""
    if prepared.tokenizer != tokenizer:
        spec = prepared.index.tokenizer_spec
        raise DataError(
            f"{prepared.directory}: the tokens were prepared with another tokenizer than that of the spec",
            hint=f"Set tokenizer: {json.dumps(spec)}" if spec else "Use the spec's tokenizer that they were prepared with.",
        )
    _require_replaceable(directory, of_run=of_run)
    refer(directory, prepared)
    return prepared


def _is_complete(work: Path, fingerprint: str) -> bool:
    """Return whether an earlier preparation was interrupted when only its directory had to be put in place."""
    try:
        return open_prepared(work).fingerprint == fingerprint
    except DataError:
        return False


def _begin(
    journal: Journal, work: Path, dtype: np.dtype[np.unsignedinteger], shard_tokens: int
) -> tuple[State, dict[Side, ShardWriter]]:
    """Return the state of an earlier preparation, or the initial one, and the writers that continue it."""
    state = journal.read()
    try:
        return state, {side: ShardWriter(work, side, dtype, shard_tokens, state.sides[side]) for side in _SIDES}
    except (OSError, ValueError):  # its files are damaged
        return journal.restart(), {side: ShardWriter(work, side, dtype, shard_tokens) for side in _SIDES}


def _write(
    data: DataSpec,
    tokenizer: Tokenizer,
    base: Path,
    state: State,
    writers: dict[Side, ShardWriter],
    journal: Journal,
    progress: Callable[[Progress], None] | None,
    workers: int | None,
) -> State:
    """Encode the jobs that the state does not include, and write their tokens; return the final state."""
    assert state.split is not None
    total = state.split.characters
    remaining = itertools.islice(jobs(data, base, state.split, _BATCH), state.jobs, None)
    warned = state.jobs > 0
    results = _encoded(remaining, tokenizer, workers, total)
    try:
        for encoded in results:
            if encoded.separator is not None and not warned:
                warned = True
                source, spelled = encoded.separator
                _log.warning(
                    "%s contains %s, which is read as ordinary characters; set data.separator to %s if it separates texts",
                    source,
                    spelled,
                    spelled,
                )
            for side, chunk in encoded.chunks.items():
                writers[side].append(chunk)
            end = (writers["train"].state.counts.tokens, writers["validation"].state.counts.tokens)
            ends = (*state.ends[: encoded.part], end)
            state = State(state.split, state.jobs + 1, state.characters + encoded.characters, ends)
            full = [writer for writer in writers.values() if writer.is_full]
            for writer in full:
                writer.complete()
            if full:
                journal.write(state, writers)
                for writer in full:
                    writer.settle()
            else:
                journal.write_if_due(state, writers)
            if progress is not None:
                tokens = sum(writer.state.counts.tokens for writer in writers.values())
                progress(Progress(state.characters, total, tokens))
    finally:
        results.close()
    return state


def _finish(journal: Journal, state: State, writers: dict[Side, ShardWriter]) -> None:
    for writer in writers.values():
        if writer.state.open.bytes:
            writer.complete()
    if journal.begun:
        journal.write(state, writers)
    for writer in writers.values():
        writer.finish()


def _encoded(remaining: Iterator[Job], tokenizer: Tokenizer, workers: int | None, total: int) -> Generator[Encoded]:
    """Yield the results of jobs, from processes or this one."""
    if workers is None:
        workers = cpu_cores() if total >= _ALONE else 1
    sent = portable(tokenizer) if workers > 1 else None
    if sent is None:
        encode = JobEncoder(tokenizer)
        yield from (encode(job) for job in remaining)
    else:
        yield from encode_in_processes(remaining, sent, workers)


def _require_replaceable(directory: Path, *, of_run: bool) -> None:
    if not directory.exists():
        return
    own = set(token_files(directory) or (unindexed_files(directory) if of_run else ()))
    entries = list(directory.rglob("*")) if directory.is_dir() else [directory]
    others = [path for path in entries if path not in own and (path.is_symlink() or not path.is_dir())]
    if others or (entries and not own):
        raise DataError(
            f"{directory} contains files other than prepared tokens, so it is not replaced",
            hint="Move them, or choose a directory that does not exist yet.",
        )


def _require_own(work: Path, directory: Path) -> None:
    """Raise an error if the work directory has files of the user."""
    if not os.path.lexists(work):
        return
    others = [work] if work.is_symlink() or not work.is_dir() else sorted(set(work.iterdir()) - set(own_files(work)))
    if others:
        raise DataError(
            f"{others[0]} is in the place where {directory} is prepared, and was not written by gptkit",
            hint="Move it, or choose another directory for the tokens.",
        )


def _require_enough(data: DataSpec, writers: dict[Side, ShardWriter], journal: Journal) -> None:
    """Raise an error if a side has too few tokens to compute a loss."""
    counts = {side: writer.state.counts for side, writer in writers.items()}
    if data.validation and counts["validation"].tokens < 2:
        journal.restart()
        raise DataError(
            f"the validation split has {counts['validation'].tokens} tokens, too few to compute a loss",
            hint=f"Use more text, or set `validation` higher than {data.validation}, or to 0.",
        )
    for side, count in counts.items():
        if count.masked and count.tokens - count.masked < 2:
            journal.restart()
            raise DataError(
                f"all but {count.tokens - count.masked} of the {count.tokens} tokens of the {side} split are masked, "
                "too many to compute a loss",
                hint="Use documents with more text that is not masked.",
            )


def _remove_unless_continued(work: Path) -> None:
    """Remove the work directory of a preparation that ended, unless the next one can continue it."""
    own = own_files(work)
    if own and not (work / Journal.NAME).exists() and set(own) == set(work.iterdir()):
        shutil.rmtree(work, ignore_errors=True)
