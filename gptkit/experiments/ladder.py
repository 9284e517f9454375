"""Training of a ladder of sizes, for `gptkit scaling`: one experiment with a variant for each size."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptkit.core.errors import GptkitError
from gptkit.experiments.comparison import default_directory
from gptkit.experiments.planning import plan_experiment
from gptkit.experiments.request import ComparisonSpec
from gptkit.experiments.results import read_experiment
from gptkit.experiments.running import Progress, default_jobs, default_threads, run_trials
from gptkit.experiments.scaling import By, Scaling, analyze, default_sizes, require_sizes, size_label
from gptkit.experiments.scaling_report import write_scaling_report
from gptkit.files import validate_data
from gptkit.reflect.snippets import flow
from gptkit.runs.opening import open_spec

__all__ = ["scaling"]


def scaling(
    base: str,
    *,
    changes: Mapping[str, Any] | None = None,
    sizes: Sequence[Mapping[str, Any]] = (),
    target: Mapping[str, Any] | None = None,
    check: bool = False,
    seeds: int | Sequence[int] = 3,
    by: By = "parameters",
    floor: bool | None = None,
    directory: str | Path | None = None,
    jobs: int | None = None,
    note: Callable[[str], None] = print,
) -> tuple[Scaling, Path]:
    """Train a ladder of sizes of a spec, fit a power law to their validation losses, and predict a larger size.

    All sizes are trained with the spec's batches and steps, so on the same tokens in the same order. Finished trainings in
    the directory are not repeated.

    Args:
        base: the spec file, or the name of a preset.
        changes: values by dotted path that all sizes have.
        sizes: values by dotted path of each size; by default widths below that of the spec.
        target: the predicted size; the spec itself by default.
        check: also train the predicted size.
        seeds: number of seeds, or the seeds.
        by: what the size is measured in, ``parameters`` or ``flops``.
        floor: whether the law has a floor E; None for yes with four sizes or more.
        directory: the experiment's directory; experiments/NAME-scaling by default.
        jobs: how many trainings run at once; by default as many as cores and memory suffice for.
        note: receives lines of progress.

    Returns:
        The fit, and the page of the report.

    Raises:
        GptkitError: a size is invalid, there are too few, too few have results, or the directory has other files.
    """
    changes = dict(changes or {})
    model = open_spec(base, changes=changes).spec.model
    if target is None:
        # Layers that are listed cannot be changed by a number.
        layers = {} if model.layers is not None else {"model.n_layers": model.n_layers}
        target = {"model.d_model": model.d_model, **layers}
    for name in sorted(set(changes) & set(target)):
        if changes[name] != target[name]:
            raise GptkitError(f"--set {name} is replaced by that of the predicted size", hint="Remove it, or --predict.")
    own = size_label(target)
    ladder = {size_label(each): dict(each) for each in sizes} or default_sizes(base, {**changes, **target})
    if own in ladder:
        raise GptkitError(f"the size {own} is predicted, so it cannot be in the ladder", hint="Remove it from --sizes.")
    require_sizes(len(ladder), floor)
    all_sizes = {**ladder, own: dict(target)}
    sized = {path for size in all_sizes.values() for path in size}
    request = validate_data(
        {
            "base": base,
            "set": {path: value for path, value in changes.items() if path not in sized},
            "seeds": seeds if isinstance(seeds, int) else list(seeds),
            "sizes": all_sizes,
        },
        ComparisonSpec,
    )
    path = default_directory(request, "-scaling") if directory is None else Path(directory)
    command = _command(base, changes, ladder, own, check, request.seed_list, by, floor, path)
    _train(request, path, command, [*ladder, *([own] if check else [])], jobs, note)
    result = analyze(read_experiment(path), own, by=by, floor=floor)
    return result, write_scaling_report(result, path)


def _train(
    request: ComparisonSpec,
    directory: Path,
    command: str,
    wanted_sizes: Sequence[str],
    jobs: int | None,
    note: Callable[[str], None],
) -> None:
    """Train what is missing of the given sizes, the smallest first."""
    threads = default_threads(len(request.seed_list) * len(wanted_sizes), jobs)
    planned = plan_experiment(request, directory, command, threads=threads, note=note)
    parameters = {variant.key: variant.parameters for variant in planned.experiment.variants}
    keys = {variant.key for variant in planned.experiment.variants if variant.size in wanted_sizes}
    trials = [trial for trial in read_experiment(directory).trials if trial.variant in keys and trial.status == "missing"]
    trials.sort(key=lambda trial: parameters[trial.variant])
    note(f"{len(wanted_sizes)} sizes × {len(request.seed_list)} seeds: {len(trials)} trainings")

    def report(progress: Progress) -> None:
        trial, size = progress.trial, planned.experiment.variant(progress.trial.variant).size
        what = f"failed: {trial.message}" if trial.status == "failed" else "no result yet"
        if trial.status == "finished":
            what = "not finite" if trial.validation_loss is None else f"loss {trial.validation_loss:.4f}"
        note(f"[{progress.done}/{progress.total}] {size}, seed {trial.seed}: {what}, {progress.seconds:.1f} s")

    if trials:
        run_trials(planned, directory, trials, min(jobs or default_jobs(planned), len(trials)), report)


def _command(
    base: str,
    changes: Mapping[str, Any],
    ladder: Mapping[str, Any],
    target: str,
    check: bool,
    seeds: Sequence[int],
    by: By,
    floor: bool | None,
    directory: Path,
) -> str:
    """Return the command that repeats the experiment."""
    words = ["gptkit", "scaling", base, "--sizes", ",".join(ladder), "--predict", target, *(["--check"] if check else [])]
    for path, value in changes.items():
        words += ["--set", f"{path}={flow(value)}"]
    counted = list(seeds) == list(range(len(seeds)))
    words += ["--seeds", str(len(seeds)) if counted else ",".join(map(str, seeds))]
    words += ["--by", by] if by != "parameters" else []
    words += [] if floor is None else ["--floor" if floor else "--no-floor"]
    return shlex.join([*words, "-o", os.fspath(directory)])
