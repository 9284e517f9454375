"""`compare`: train the variants of a spec on the same data with the same seeds, and report what distinguishes them."""

from __future__ import annotations

import importlib
import math
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptkit.core import html
from gptkit.core.paths import cut_name
from gptkit.experiments.planning import Planned, plan_experiment
from gptkit.experiments.report import REPORT, write_report
from gptkit.experiments.request import ComparisonSpec, Match
from gptkit.experiments.results import Experiment, Trial, read_experiment
from gptkit.experiments.running import Progress, default_jobs, default_threads, run_trials
from gptkit.files import validate_data
from gptkit.reflect.snippets import flow
from gptkit.runs.opening import open_spec

__all__ = ["SKIPPED", "Comparison", "command_of", "compare", "default_directory", "run_request"]

SKIPPED = "skipped: "
"""The beginning of a note on a variant that is invalid."""

_SLUG = re.compile(r"[^\w.-]+")


class Comparison:
    """A comparison and its results so far.

    Attributes:
        directory: the experiment's directory.
        experiment: the variants, seeds and trials.
    """

    def __init__(self, directory: Path, experiment: Experiment) -> None:
        self.directory = directory
        self.experiment = experiment

    @property
    def finished(self) -> bool:
        """Whether every trial has results, or has failed."""
        return all(trial.status != "missing" for trial in self.experiment.trials)

    @property
    def report(self) -> Path:
        """The page of the report."""
        return self.directory / REPORT

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The trials as rows: the choices of the variant by dotted path, then what was measured."""
        return [_row(self.experiment, trial) for trial in self.experiment.trials]

    @property
    def results(self) -> Any:
        """`rows` as a `pandas.DataFrame`; as they are without pandas."""
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            return self.rows
        return pandas.DataFrame(self.rows)

    def __repr__(self) -> str:
        done = sum(trial.status == "finished" for trial in self.experiment.trials)
        return f"<Comparison {self.experiment.name!r}: {done} of {len(self.experiment.trials)} trials in {self.directory}>"

    def _repr_html_(self) -> str:
        """Return the mean results of each variant for a notebook."""
        rows = []
        for variant in self.experiment.variants:
            trials = self.experiment.trials_of(variant.key)
            losses = [trial.validation_loss for trial in trials if trial.validation_loss is not None]
            failed = sum(trial.status == "failed" for trial in trials)
            loss = f"{math.fsum(losses) / len(losses):.4f}" if losses else "–"
            rows.append([variant.label, loss, f"{len(losses)} of {len(trials)}", str(failed), f"{variant.parameters:,}"])
        title = html.heading(self.experiment.name, str(self.directory))
        return title + html.table(rows, ["variant", "validation loss", "seeds", "failed", "parameters"])


def compare(
    base: str | Path | Sequence[str | Path],
    vary: Mapping[str, Sequence[Any]] | None = None,
    *,
    seeds: int | Sequence[int] = 3,
    match: Match | None = None,
    learning_rates: Sequence[float] = (),
    sizes: Mapping[str, Mapping[str, Any]] | None = None,
    changes: Mapping[str, Any] | None = None,
    question: str = "",
    name: str = "",
    directory: str | Path | None = None,
    skip_invalid: bool = False,
    retry_failed: bool = False,
    jobs: int | None = None,
    progress: bool = True,
) -> Comparison:
    """Compare variants of a spec: train each with the same data in the same order, for several seeds.

    ::

        result = gptkit.compare("tiny", {"model.position": ["none", "learned", "rotary"]}, seeds=3)
        result.results                       # a DataFrame with one row for each trial

    Trials that are finished in the directory are not trained again, and interrupted ones are resumed.

    Args:
        base: the spec file whose fields are varied, or several spec files.
        vary: the compared values by dotted path; every combination is a variant.
        seeds: number of seeds, or the seeds.
        match: change widths so that all variants equal the base in parameters, flops, cache or time.
        learning_rates: train each variant with each of these rates.
        sizes: sizes at which everything is compared: values by dotted path, by label.
        changes: values by dotted path that all variants have.
        question: the question that the experiment answers.
        name: the name; that of the base by default.
        directory: the experiment's directory; experiments/NAME by default.
        skip_invalid: skip invalid combinations, instead of raising an error.
        retry_failed: train trials again that failed.
        jobs: how many trials are trained at once; by default as many as cores and memory suffice for.
        progress: print a line for each trial.

    Raises:
        GptkitError: a variant is invalid, the corpus is unavailable, or the directory has other files.
    """
    data: dict[str, Any] = {
        "name": name,
        "question": question,
        "base": str(base) if isinstance(base, (str, Path)) else None,
        "specs": [] if isinstance(base, (str, Path)) else [str(each) for each in base],
        "vary": {path: list(values) for path, values in (vary or {}).items()},
        "set": dict(changes or {}),
        "seeds": seeds if isinstance(seeds, int) else list(seeds),
        "match": match,
        "learning_rates": list(learning_rates),
        "sizes": {label: dict(values) for label, values in (sizes or {}).items()},
        "skip_invalid": skip_invalid,
    }
    request = validate_data(data, ComparisonSpec)
    target = default_directory(request) if directory is None else Path(directory)
    return run_request(
        request,
        target,
        command_of(request, target),
        jobs=jobs,
        retry_failed=retry_failed,
        note=print if progress else _nothing,
    )


def run_request(
    request: ComparisonSpec,
    directory: Path,
    command: str,
    *,
    jobs: int | None = None,
    part: tuple[int, int] = (1, 1),
    retry_failed: bool = False,
    report: bool = True,
    note: Callable[[str], None],
) -> Comparison:
    """Train what is missing of an experiment, and write its report.

    Args:
        request: what is compared.
        directory: the experiment's directory.
        command: the command that repeats the experiment.
        jobs: how many trials are trained at once.
        part: k and n: train the k-th of n parts of the trials, as one job of an array.
        retry_failed: train trials again that failed.
        report: write the report.
        note: receives lines of progress.

    Raises:
        GptkitError: as for `compare`.
    """
    n_settings = len(request.points) or math.prod(len(values) for values in request.vary.values())
    n_trials = len(request.seed_list) * max(1, n_settings)
    planned = plan_experiment(request, directory, command, threads=default_threads(n_trials, jobs), note=note)
    trials = read_experiment(directory).trials
    again = ("missing", "failed") if retry_failed else ("missing",)
    # All variants of a seed first: so the results of an experiment that is stopped can be compared.
    ordered = sorted(trials, key=lambda trial: planned.experiment.seeds.index(trial.seed))
    wanted = [trial for trial in ordered[part[0] - 1 :: part[1]] if trial.status in again]
    jobs = min(jobs or default_jobs(planned), max(1, len(wanted)))
    _introduce(planned, trials, wanted, jobs, note)
    try:
        run_trials(planned, directory, wanted, jobs, lambda progress: note(_line(planned.experiment, progress)))
    except KeyboardInterrupt:
        note(f"stopped; to continue, repeat: {command}")
        raise
    result = Comparison(directory, read_experiment(directory))
    if report:
        write_report(result.experiment, directory)
    return result


def default_directory(request: ComparisonSpec, suffix: str = "") -> Path:
    """Return ``experiments/NAME``, followed by a suffix."""
    name = request.name or open_spec(request.base or request.specs[0]).spec.name
    return Path("experiments") / (cut_name(_SLUG.sub("-", name).strip("-.") or "comparison") + suffix)


def command_of(request: ComparisonSpec, directory: Path) -> str:
    """Return the command that repeats an experiment."""
    words = ["gptkit", "compare", *([request.base] if request.base is not None else request.specs)]
    for path, values in request.vary.items():
        words += ["--vary", f"{path}={','.join(map(flow, values))}"]
    for path, value in request.set.items():
        words += ["--set", f"{path}={flow(value)}"]
    # One seed of a list is followed by a comma: without it, the number is that of the seeds.
    one = not isinstance(request.seeds, int) and len(request.seeds) == 1
    seeds = [request.seeds] if isinstance(request.seeds, int) else [*request.seeds, *([""] if one else [])]
    words += ["--seeds", ",".join(map(str, seeds))]
    words += [] if request.match is None else ["--match", request.match]
    words += ["--learning-rates", ",".join(map(flow, request.learning_rates))] if request.learning_rates else []
    words += ["--sizes", ",".join(request.sizes)] if request.sizes else []
    words += ["--skip-invalid"] if request.skip_invalid else []
    return shlex.join([*words, "-o", os.fspath(directory)])


def _introduce(
    planned: Planned, trials: Sequence[Trial], wanted: Sequence[Trial], jobs: int, note: Callable[[str], None]
) -> None:
    experiment = planned.experiment
    for label, reason in experiment.invalid.items():
        note(f"{SKIPPED}{label}: {reason}")
    done = sum(trial.status == "finished" for trial in trials)
    failed = sum(trial.status == "failed" for trial in trials)
    counts = [_plural(len(experiment.variants), "variant"), _plural(len(experiment.seeds), "seed")]
    text = f"{' × '.join(counts)}: {_plural(len(wanted), 'trial')} to train"
    text += f", {done} finished earlier" if done else ""
    text += f", {failed} failed earlier" if failed else ""
    note(f"{text}; {jobs} at once" if len(wanted) > 1 else text)


def _line(experiment: Experiment, progress: Progress) -> str:
    trial = progress.trial
    label = f"[{progress.done}/{progress.total}] {experiment.variant(trial.variant).label}, seed {trial.seed}"
    if trial.status == "finished":
        bits = "" if trial.bits_per_byte is None else f", {trial.bits_per_byte:.3f} bits/byte"
        what = f"loss {_shown(trial.validation_loss)}{bits}, {_duration(progress.seconds)}"
    elif trial.status == "failed":
        what = f"failed: {trial.message}"
    else:
        what = "stopped, or trained by another process"
    rest = f"; {_duration(progress.eta)} left" if progress.done < progress.total else ""
    return f"{label}: {what}{rest}"


def _row(experiment: Experiment, trial: Trial) -> dict[str, Any]:
    variant = experiment.variant(trial.variant)
    names = ("validation_loss", "best_validation_loss", "bits_per_byte", "tokens", "seconds", "tokens_per_second")
    more = ("decode_tokens_per_second", "peak_memory", "message")
    return {
        "variant": variant.label,
        **variant.choices,
        "size": variant.size,
        "learning_rate": variant.learning_rate,
        "seed": trial.seed,
        "status": trial.status,
        **{name: getattr(trial, name) for name in (*names, *more)},
        "parameters": variant.parameters,
        "flops_per_token": variant.flops_per_token,
        "cache_bytes_per_token": variant.cache_bytes_per_token,
        "matched": variant.matched,
    }


def _shown(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.4f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _nothing(text: str) -> None:
    pass
