"""Results of an experiment: what was compared, and what each trial measured, as JSON in the experiment's directory.

An experiment's directory has one file for what is compared, and one for each finished or failed trial::

    experiment.json          the variants, seeds and axes
    trials/KEY.json          the results of a trial
    trials/KEY/              its run directory

So trials that were trained on several machines make one experiment if their files are copied together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gptkit.core.atomic import write_text, writing
from gptkit.core.errors import FileError
from gptkit.core.outputs import EXPERIMENT, TRIALS
from gptkit.core.sealed import seal, unseal

__all__ = [
    "EXPERIMENT",
    "FORMAT",
    "MATCHES",
    "SEARCH",
    "TRIALS",
    "Experiment",
    "Trial",
    "Variant",
    "is_experiment",
    "read_entries",
    "read_experiment",
    "read_trial",
    "read_variant",
    "sound_entries",
    "trial_key",
    "write_entries",
    "write_experiment",
    "write_trial",
]

FORMAT = "gptkit experiment 1"
"""Value of the entry `format` in the files of an experiment, by which gptkit recognizes its own."""

SEARCH = "search.json"
"""The file of a search in its experiment's directory: the settings proposed so far."""
MATCHES = "matches.json"
"""The file of an experiment's directory with what was changed in each variant to equal the base."""

_AGAIN = "Move it; the variants are then matched again."


@dataclass(frozen=True)
class Variant:
    """One of the compared specs.

    Attributes:
        key: short name, unique in the experiment: the first digits of `spec_hash`, as the first version of gptkit that
            planned the experiment computed it.
        label: what distinguishes it from the other variants: ``position=alibi, norm=rms``.
        choices: the value of each axis as text, by the axis's dotted path; equal for all learning rates and sizes.
        spec_hash: SHA-256 of the resolved spec with seed 0, without its name.
        spec: the resolved spec as plain data, with seed 0.
        is_base: whether its choices are those of the base, with which the others are compared.
        size: label of the size, if the experiment has several.
        learning_rate: the learning rate, if the experiment has several for each choice.
        matched: what was changed to equal the base (``feedforward.hidden = 344: parameters +0.2 %``), or why nothing could
            be; None without matching.
        parameters: number of parameters.
        flops_per_token: floating-point operations of a forward pass per token.
        cache_bytes_per_token: memory of one more token in the decoding cache.
    """

    key: str
    label: str
    choices: Mapping[str, str]
    spec_hash: str
    spec: Mapping[str, Any]
    is_base: bool
    size: str | None
    learning_rate: float | None
    matched: str | None
    parameters: int
    flops_per_token: float
    cache_bytes_per_token: float


@dataclass(frozen=True)
class Trial:
    """The training of one variant with one seed.

    Trials of a seed have the same data in the same order. Losses are in nats per token; those that are not finite are None.

    Attributes:
        variant: key of the variant.
        seed: the seed.
        status: finished, failed, or missing (not trained yet).
        message: why it failed.
        run: the run directory, relative to that of the experiment.
        validation_loss: the loss of the whole validation split after the training.
        best_validation_loss: the lowest loss of the validations during the training.
        bits_per_byte: bits per byte of the validation split; None if the tokenizer loses text.
        tokens: number of tokens trained on.
        seconds: duration of the training, without evaluation.
        tokens_per_second: tokens trained on per second, without validation.
        decode_tokens_per_second: tokens generated per second by one row.
        peak_memory: peak of the memory that the training allocated, in bytes; None if the system does not report it.
        curve: step, tokens, validation loss and training loss (the mean since the previous line), where recorded.
        loss_by_position: mean loss of each position of the trained window.
        loss_beyond: mean loss of each position after these; None if the position encoding has no more positions.
        samples: texts generated from fixed prompts and seeds, the same for all variants.
    """

    variant: str
    seed: int
    status: Literal["finished", "failed", "missing"]
    message: str | None = None
    run: str | None = None
    validation_loss: float | None = None
    best_validation_loss: float | None = None
    bits_per_byte: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    peak_memory: int | None = None
    curve: tuple[tuple[int, int, float | None, float | None], ...] = ()
    loss_by_position: tuple[float, ...] | None = None
    loss_beyond: tuple[float, ...] | None = None
    samples: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The name of the trial's files."""
        return trial_key(self.variant, self.seed)


@dataclass(frozen=True)
class Experiment:
    """A comparison of variants.

    Attributes:
        name: the name.
        command: the command that repeats it.
        question: what the experiment answers, for the head of its report; empty if not given.
        axes: the labels of the compared values, by dotted path, the base's first; one axis ``spec`` for several spec files.
        seeds: the seeds; trials of a seed are paired.
        variants: the variants, the base first.
        trials: one for each variant and seed, in this order.
        match: what is equal in all variants: parameters, flops, cache or time; None if nothing was matched.
        invalid: variants that were skipped, with the reason, by label.
        threads: number of threads of each training, on which the last bits of its results depend.
    """

    name: str
    command: str
    question: str
    axes: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    trials: tuple[Trial, ...] = ()
    match: str | None = None
    invalid: Mapping[str, str] = dataclasses.field(default_factory=dict)
    threads: int = 1

    def variant(self, key: str) -> Variant:
        """Return a variant by its key."""
        return next(variant for variant in self.variants if variant.key == key)

    def trials_of(self, key: str) -> tuple[Trial, ...]:
        """Return the trials of a variant, in the order of the seeds."""
        return tuple(trial for trial in self.trials if trial.variant == key)


def trial_key(variant: str, seed: int) -> str:
    """Return the name of a trial's files: ``3f2a9c01d4e5-0``."""
    return f"{variant}-{seed}"


def write_experiment(experiment: Experiment, directory: Path) -> None:
    """Write `experiment.json`, without the trials, which have files of their own.

    Raises:
        FileError: it cannot be written.
    """
    data = dataclasses.asdict(experiment)
    del data["trials"]
    write_entries(directory / EXPERIMENT, data)


def write_trial(trial: Trial, directory: Path) -> None:
    """Write the results of a trial into an experiment's directory.

    Raises:
        FileError: they cannot be written.
    """
    write_entries(directory / TRIALS / f"{trial.key}.json", dataclasses.asdict(trial))


def is_experiment(directory: Path) -> bool:
    """Return whether a directory holds an experiment."""
    return (directory / EXPERIMENT).is_file()


def read_experiment(directory: Path) -> Experiment:
    """Read an experiment; trials without results are `missing`.

    Raises:
        FileError: the directory holds no experiment, or a file of it is damaged.
    """
    path = directory / EXPERIMENT
    data = read_entries(path)
    if data is None:
        raise FileError(f"{directory} is not an experiment", hint="Run one: gptkit compare SPEC --vary PATH=A,B -o DIR")
    with sound_entries(path):
        variants = tuple(Variant(**each) for each in data.pop("variants"))
        axes = {axis: tuple(values) for axis, values in data.pop("axes").items()}
        experiment = Experiment(axes=axes, seeds=tuple(data.pop("seeds")), variants=variants, **data)
    trials = [read_trial(directory, variant.key, seed) for variant in variants for seed in experiment.seeds]
    return dataclasses.replace(experiment, trials=tuple(trials))


def read_variant(directory: Path, key: str) -> Variant:
    """Read one variant of an experiment.

    Raises:
        FileError: the directory holds no experiment with it, or its file is damaged.
    """
    path = directory / EXPERIMENT
    with sound_entries(path):
        for each in (read_entries(path) or {"variants": []})["variants"]:
            if each["key"] == key:
                return Variant(**each)
    raise FileError(f"{path} has no variant {key}", hint="Repeat the command of the experiment.")


def read_trial(directory: Path, variant: str, seed: int) -> Trial:
    """Read the results of a trial.

    Raises:
        FileError: its file is damaged.
    """
    path = directory / TRIALS / f"{trial_key(variant, seed)}.json"
    data = read_entries(path)
    if data is None:
        return Trial(variant, seed, "missing")
    with sound_entries(path):
        data["curve"] = tuple(tuple(point) for point in data["curve"])
        for name in ("loss_by_position", "loss_beyond"):
            data[name] = None if data[name] is None else tuple(data[name])
        return Trial(**{**data, "samples": tuple(data["samples"])})


def write_entries(path: Path, data: Mapping[str, Any]) -> None:
    """Write a file of an experiment, with its format and a checksum.

    Raises:
        FileError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, seal({"format": FORMAT, **data}, indent=1))


def read_entries(path: Path) -> dict[str, Any] | None:
    """Return what `write_entries` wrote; None if the file does not exist.

    Raises:
        FileError: it cannot be read, is damaged, or is not a file of an experiment.
    """
    try:
        data = unseal(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None
    if data.pop("format", None) != FORMAT:
        raise FileError(f"{path} is not a file of an experiment by this version of gptkit", hint="Choose another directory.")
    return data


@contextmanager
def sound_entries(path: Path) -> Iterator[None]:
    """Raise a `FileError` for entries of a file that are missing, unknown, or of another type."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> FileError:
    hints = {EXPERIMENT: "Choose another directory.", SEARCH: "Choose another directory: -o DIR.", MATCHES: _AGAIN}
    hint = hints.get(path.name, "Remove it; the trial is then trained again.")
    return FileError(f"{path} is damaged: {error}", hint=hint)
