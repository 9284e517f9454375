"""Preparation of an experiment: its directory, the tokens of all trials, matching, and `experiment.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gptkit.core.errors import FileError, GptkitError
from gptkit.core.lock import Lock
from gptkit.experiments.matching import Matched, match, measure_of, sizes
from gptkit.experiments.matching_time import match_time
from gptkit.experiments.request import ComparisonSpec
from gptkit.experiments.results import (
    MATCHES,
    SEARCH,
    Experiment,
    Variant,
    is_experiment,
    read_entries,
    read_experiment,
    sound_entries,
    write_entries,
    write_experiment,
)
from gptkit.experiments.trial import PREPARED
from gptkit.experiments.variants import Draft, draft_variants, hash_of, plain_spec, spec_hash
from gptkit.files import validate_data
from gptkit.runs.corpus import find_prepared, fit_tokenizer, prepare_corpus, prepared_directory
from gptkit.runs.sizes import training_plan
from gptkit.runs.spec import ExperimentSpec

__all__ = ["Planned", "plan_experiment"]

_KEY = 12

_PATIENCE = 3600.0
"""Seconds to wait for another process that prepares the same experiment."""


@dataclass(frozen=True)
class Planned:
    """An experiment that is ready to be trained.

    Attributes:
        experiment: the experiment, without results.
        bases: the base directory of relative paths, by the key of each variant.
        memory: estimated memory of one trial in bytes.
    """

    experiment: Experiment
    bases: Mapping[str, Path]
    memory: int


def plan_experiment(
    request: ComparisonSpec, directory: Path, command: str, *, threads: int, note: Callable[[str], None]
) -> Planned:
    """Prepare an experiment in its directory, or one that was interrupted or extended.

    Args:
        request: what is compared.
        directory: the experiment's directory.
        command: the command that repeats the experiment.
        threads: number of threads of each training, unless trials were trained already.
        note: receives messages about what was matched.

    Raises:
        GptkitError: a variant is invalid, or the corpus is unavailable.
        FileError: the directory contains other files, or another experiment.
    """
    drafts = draft_variants(request)
    require_free(directory)
    with Lock(directory / ".lock").awaited(_PATIENCE):
        previous = read_experiment(directory) if is_experiment(directory) else None
        threads = threads if previous is None else previous.threads
        vocabulary = _Vocabulary(directory / PREPARED)
        for draft in drafts.variants:
            vocabulary(draft)  # before anything that takes long
        matched = _Matching(directory, request, vocabulary, threads, note)
        variants, bases, keys = [], {}, _known_keys(previous)
        for draft in drafts.variants:
            changed, text = matched(draft)
            variant = _variant(changed, text, vocabulary(draft), keys)
            variants.append(variant)
            bases[variant.key] = changed.opened.base
        experiment = Experiment(
            request.name or drafts.variants[0].opened.spec.name,
            command,
            request.question,
            drafts.axes,
            request.seed_list,
            tuple(variants),
            match=request.match,
            invalid=drafts.invalid,
            threads=threads,
        )
        _require_same(previous, experiment, directory)
        write_experiment(experiment, directory)
    largest = max(zip(drafts.variants, variants, strict=True), key=lambda pair: pair[1].parameters)[0]
    return Planned(experiment, bases, training_plan(largest.opened.spec, vocabulary(largest)).training_bytes)


def require_free(directory: Path) -> None:
    """Raise an error if a directory contains files, but no experiment.

    Raises:
        FileError: it does, or it is a file.
    """
    if directory.exists() and not directory.is_dir():
        raise FileError(
            f"{directory} is a file, but an experiment requires a directory", hint="Choose another name: -o DIR."
        )
    if not directory.is_dir() or is_experiment(directory):
        return
    entries = sorted(each.name for each in directory.iterdir() if each.name not in (".lock", MATCHES, PREPARED, SEARCH))
    if entries:
        raise FileError(
            f"{directory} is not an experiment, but contains {entries[0]}", hint="Choose another directory: -o DIR."
        )


def _require_same(previous: Experiment | None, new: Experiment, directory: Path) -> None:
    if previous is None or all(trial.status == "missing" for trial in previous.trials):
        return
    if not {variant.key for variant in previous.variants} & {variant.key for variant in new.variants}:
        raise FileError(
            f"{directory} holds the experiment {previous.name!r}, with which this one has no variant in common",
            hint=f"Choose another directory (-o DIR), or repeat it: {previous.command}",
        )


def _known_keys(previous: Experiment | None) -> dict[str, str]:
    """Return the keys of an experiment's variants, by the hashes that this version of gptkit gives to their specs.

    A version that adds a field changes all hashes. The experiment of an earlier one is continued nevertheless.
    """
    keys = {}
    for variant in () if previous is None else previous.variants:
        try:
            spec = validate_data(dict(variant.spec), ExperimentSpec)
        except GptkitError:
            continue  # a component or field was removed since
        keys[hash_of(plain_spec(spec))] = variant.key
    return keys


def _variant(draft: Draft, matched: str | None, vocab_size: int, keys: Mapping[str, str]) -> Variant:
    spec = draft.opened.spec
    digest, measured = spec_hash(draft), sizes(spec.model, vocab_size)
    texts = [*draft.notes, *([] if matched is None else [matched])]
    return Variant(
        keys.get(digest, digest[:_KEY]),
        draft.label,
        dict(draft.choices),
        digest,
        plain_spec(spec),
        draft.is_base,
        draft.size,
        draft.learning_rate,
        "; ".join(texts) or None,
        measured.parameters,
        measured.flops_per_token,
        measured.cache_bytes_per_token,
    )


class _Vocabulary:
    """Vocabulary sizes of variants, whose tokens are prepared once for all trials."""

    def __init__(self, prepared: Path) -> None:
        self._prepared = prepared
        self._sizes: dict[str, int] = {}

    def __call__(self, draft: Draft) -> int:
        opened = replace(draft.opened, prepared=self._prepared.absolute())
        spec = opened.spec
        data = {name: getattr(spec, name).model_dump(mode="json") for name in ("data", "tokenizer")}
        key = json.dumps([data, str(opened.base)], sort_keys=True)
        if key not in self._sizes:
            if spec.training.init_from is not None:
                # The tokenizer is that of the weights, so each run prepares its tokens.
                self._sizes[key] = fit_tokenizer(opened).vocab_size
            else:
                prepared = find_prepared(opened)
                prepared = prepared or prepare_corpus(opened, prepared_directory(opened))
                self._sizes[key] = prepared.vocab_size
        return self._sizes[key]


class _Matching:
    """Matching of variants with the base of their size; results are kept in the experiment's directory."""

    def __init__(
        self,
        directory: Path,
        request: ComparisonSpec,
        vocabulary: _Vocabulary,
        threads: int,
        note: Callable[[str], None],
    ) -> None:
        self._file = directory / MATCHES
        self._quantity = request.match
        self._vocabulary = vocabulary
        self._threads = threads
        self._note = note
        self._bases: dict[str | None, Draft] = {}
        self._known = _read_matches(self._file)

    def __call__(self, draft: Draft) -> tuple[Draft, str | None]:
        """Return the matched variant, and what was changed or why nothing was."""
        quantity = self._quantity
        if quantity is None:
            return draft, None
        if draft.is_base:
            self._bases.setdefault(draft.size, draft)
            return draft, None
        base = self._bases.get(draft.size)
        if base is None:
            raise GptkitError(
                f"--match {quantity}: the base is invalid at size {draft.size}, so {draft.label} has nothing to equal",
                hint="Choose another size.",
            )
        key = self._key(draft, base)
        if key not in self._known:
            self._known[key] = self._match(draft, base)
            _write_matches(self._file, self._known)
        result = self._known[key]
        self._note(f"{draft.label}: {result.text}")
        return (draft.changed(result.changes) if result.changes else draft), result.text

    def _match(self, draft: Draft, base: Draft) -> Matched:
        assert self._quantity is not None
        if self._quantity == "time":
            before = torch.get_num_threads()
            torch.set_num_threads(self._threads)
            try:
                return match_time(draft, base, self._vocabulary(draft), self._vocabulary(base))
            finally:
                torch.set_num_threads(before)
        measure = measure_of(self._quantity, self._vocabulary)
        return match(draft, measure(base), self._quantity, measure)

    def _key(self, draft: Draft, base: Draft) -> str:
        """Return a key of everything that matching depends on, the same for all learning rates."""
        facts: list[Any] = [self._quantity]
        for each in (draft, base):
            spec = each.opened.spec
            facts += [spec.model.model_dump_json(), self._vocabulary(each), spec.window, spec.training.batch_size]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _read_matches(path: Path) -> dict[str, Matched]:
    data = read_entries(path)
    if data is None:
        return {}
    with sound_entries(path):
        known = {key: Matched(**each) for key, each in data.pop("matches").items()}
        if data:
            raise ValueError(f"unknown entries: {', '.join(data)}")
    return known


def _write_matches(path: Path, known: Mapping[str, Matched]) -> None:
    write_entries(path, {"matches": {key: dict(vars(each)) for key, each in known.items()}})
