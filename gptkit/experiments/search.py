"""`search`: train settings of a spec, each proposed from the results of the earlier ones."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gptkit.core.atomic import writing
from gptkit.core.errors import FileError, GptkitError, SpecError
from gptkit.experiments.comparison import SKIPPED, Comparison, default_directory, run_request
from gptkit.experiments.measures import Measure, Row, measure_of, problem, rows, values
from gptkit.experiments.planning import require_free
from gptkit.experiments.proposals import propose
from gptkit.experiments.report import write_report
from gptkit.experiments.request import ComparisonSpec
from gptkit.experiments.results import SEARCH, Experiment, read_entries, sound_entries, write_entries
from gptkit.experiments.running import n_cores
from gptkit.experiments.search_spec import SearchSpec
from gptkit.experiments.variants import POINT_AXIS, point_label
from gptkit.files import validate_data
from gptkit.reflect.snippets import flow
from gptkit.runs.opening import open_spec

__all__ = ["Search", "Tried", "run_search", "search"]

CONFIRMED = "confirmed"
"""Directory, in that of the search, of the comparison of the best setting with the spec."""


@dataclass(frozen=True)
class Tried:
    """A setting that was trained.

    Attributes:
        point: its values by dotted path; empty for the spec as it is.
        row: its results.
    """

    point: Mapping[str, Any]
    row: Row


@dataclass(frozen=True)
class Search:
    """A search and its results.

    Attributes:
        spec: what was searched.
        measure: the number that was minimized.
        tried: the settings that have a result, the best one first.
        failed: why there is none, by the label of the setting.
        comparison: all settings as an experiment, with its report.
        confirmed: the best setting compared with the spec, with seeds that the search did not use; None if not requested.
    """

    spec: SearchSpec
    measure: Measure
    tried: tuple[Tried, ...]
    failed: Mapping[str, str]
    comparison: Comparison
    confirmed: Comparison | None

    @property
    def best(self) -> Tried | None:
        """The best setting."""
        return self.tried[0] if self.tried else None


def search(
    base: str | Path,
    ranges: Mapping[str, Any],
    *,
    trials: int = 20,
    seeds: int = 1,
    match: str | None = None,
    sampler: str = "tpe",
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    confirm: int = 0,
    directory: str | Path | None = None,
    jobs: int | None = None,
    note: Callable[[str], None] = print,
) -> Search:
    """Search for the setting of a spec with the lowest validation loss.

    ::

        result = gptkit.search("tiny", {"training.optimizer.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}})
        result.best.point, result.best.row.loss

    Args:
        base: the spec file, or the name of a preset.
        ranges: the fields of `Range` by dotted path: ``low`` and ``high``, with ``log`` or ``step``, or ``values``.
        trials: number of proposed settings.
        seeds: number of trainings of each setting.
        match: make all settings equal to the spec in parameters, flops, cache or time.
        sampler: ``tpe`` or ``random``.
        seed: seed of the proposals.
        changes: values by dotted path that all settings have.
        confirm: number of new seeds with which the best setting is compared with the spec; 0 for none.
        directory: the directory; experiments/NAME-search by default. Repeat the call to continue.
        jobs: how many trainings run at once.
        note: receives lines of progress.

    Raises:
        GptkitError: the spec or a range is invalid, or the directory has other files.
        RequirementError: Optuna is not installed.
    """
    given = {"base": str(base), "ranges": dict(ranges), "trials": trials, "seeds": seeds, "match": match}
    spec = validate_data({**given, "sampler": sampler, "seed": seed, "set": dict(changes or {})}, SearchSpec)
    return run_search(spec, directory, confirm=confirm, jobs=jobs, note=note)


def run_search(
    spec: SearchSpec,
    directory: str | Path | None = None,
    *,
    confirm: int = 0,
    jobs: int | None = None,
    note: Callable[[str], None],
) -> Search:
    """Search as a `SearchSpec` describes; the arguments are those of `search`."""
    _require_valid(spec)  # before anything is written
    note = _once(note)
    target = default_directory(_request(spec, [{}]), "-search") if directory is None else Path(directory)
    require_free(target)
    command = _command(spec, target, confirm)
    state = _State.open(target, spec, max(1, (jobs or n_cores()) // spec.seeds))
    own = _own_values(spec)
    if len(state.points) == 1 and state.batch > 1:
        state.add(propose(spec, [(own, None)], min(state.batch - 1, spec.trials)))
    while True:
        last = len(state.points) > spec.trials
        comparison = run_request(_request(spec, state.points), target, command, jobs=jobs, report=last, note=note)
        results = _losses(comparison.experiment)
        if last:
            break
        known = [(point or own, results.get(point_label(point))) for point in state.points]
        # Whole batches, also after an interruption or with more trials: so the same settings are proposed.
        proposed = propose(spec, known, state.batch)[: spec.trials + 1 - len(state.points)]
        if not proposed:
            note(f"all settings of these ranges were tried: {len(state.points)}")
            write_report(comparison.experiment, target)
            break
        state.add(proposed)
    result = _result(spec, state.points, comparison, None)
    if not confirm or result.best is None or not result.best.point:
        return result
    seeds = list(range(spec.seeds, spec.seeds + confirm))
    request = _request(spec, [{}, dict(result.best.point)], seeds)
    return _result(spec, state.points, comparison, run_request(request, target / CONFIRMED, command, jobs=jobs, note=note))


def _require_valid(spec: SearchSpec) -> None:
    """Raise an error if the spec is invalid, or with every value of a range that is tried alone: its path is wrong then."""
    open_spec(spec.base, changes=spec.set)
    for path, each in spec.ranges.items():
        error: GptkitError | None = None
        for value in each.values or (each.low, each.high):
            try:
                open_spec(spec.base, changes={**spec.set, path: value})
                break
            except GptkitError as raised:
                error = raised
        else:
            assert error is not None
            raise _of_range(error, path)


def _of_range(error: GptkitError, path: str) -> GptkitError:
    """Return the error of a field that is varied with the option that names it, in place of the value that was tried."""
    if not isinstance(error, SpecError):
        return error
    tried, source = f"--set {path}=", f"--range {path}"
    own = [replace(each, source=source) if (each.source or "").startswith(tried) else each for each in error.problems]
    return SpecError(own, hint=error.hint)


def _once(note: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that passes on the reason of each skipped setting once, not for every batch."""
    skipped: set[str] = set()

    def noted(text: str) -> None:
        if text not in skipped:
            note(text)
        if text.startswith(SKIPPED):
            skipped.add(text)

    return noted


def _request(spec: SearchSpec, points: list[dict[str, Any]], seeds: list[int] | None = None) -> ComparisonSpec:
    data = {"base": spec.base, "points": points, "set": spec.set, "match": spec.match, "skip_invalid": True}
    return validate_data({**data, "seeds": seeds or spec.seeds}, ComparisonSpec)


def _own_values(spec: SearchSpec) -> dict[str, Any]:
    """Return the values that the spec itself has at the searched paths, where it has them."""
    own: dict[str, Any] = {}
    for path in spec.ranges:
        value: Any = open_spec(spec.base, changes=spec.set).spec.plain()
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            name = value.get("name") if isinstance(value, dict) else None
            own[path] = name if name is not None and spec.ranges[path].contains(name) else value
    return own


def _losses(experiment: Experiment) -> dict[str, float]:
    """Return the minimized number by the label of the setting, where every seed has a result."""
    by_seed = values(experiment, measure_of(experiment))
    return {
        variant.choices[POINT_AXIS]: sum(results.values()) / len(results)
        for variant in experiment.variants
        if len(results := by_seed[variant.key]) == len(experiment.seeds)
    }


def _result(spec: SearchSpec, points: list[dict[str, Any]], comparison: Comparison, confirmed: Comparison | None) -> Search:
    experiment = comparison.experiment
    measure = measure_of(experiment)
    by_label = {point_label(point): point for point in points}
    complete = _losses(experiment)
    tried = [
        Tried(by_label[row.variant.choices[POINT_AXIS]], row)
        for row in rows(experiment, measure)
        if row.variant.choices[POINT_AXIS] in complete
    ]
    failed = dict(experiment.invalid)
    for trial in experiment.trials:
        if reason := problem(trial):
            failed.setdefault(experiment.variant(trial.variant).label, reason)
    return Search(spec, measure, tuple(tried), failed, comparison, confirmed)


def _command(spec: SearchSpec, directory: Path, confirm: int) -> str:
    """Return the command that repeats a search."""
    words = ["gptkit", "search", spec.base]
    for path, each in spec.ranges.items():
        text = ",".join(map(flow, each.values))
        if not each.values:
            kind = ":log" if each.log else "" if each.step is None else f":{each.step!r}"
            text = f"{each.low!r}..{each.high!r}{kind}"
        words += ["--range", f"{path}={text}"]
    for path, value in spec.set.items():
        words += ["--set", f"{path}={flow(value)}"]
    words += ["--trials", str(spec.trials)]
    words += [] if spec.seeds == 1 else ["--seeds", str(spec.seeds)]
    words += [] if spec.match is None else ["--match", spec.match]
    words += [] if spec.sampler == "tpe" else ["--sampler", spec.sampler]
    words += [] if spec.seed == 0 else ["--seed", str(spec.seed)]
    words += ["--confirm", str(confirm)] if confirm else []
    return shlex.join([*words, "-o", os.fspath(directory)])


class _State:
    """The settings proposed so far, in a file of the experiment's directory.

    Attributes:
        points: the settings, the spec as it is first.
        batch: number of settings that are proposed at once.
    """

    def __init__(self, path: Path, spec: SearchSpec, points: list[dict[str, Any]], batch: int) -> None:
        self._path = path
        self._spec = spec
        self.points = points
        self.batch = batch

    @classmethod
    def open(cls, directory: Path, spec: SearchSpec, batch: int) -> _State:
        """Return the state in a directory, a new one if there is none.

        Raises:
            FileError: the directory holds another search, or its file is damaged.
        """
        path = directory / SEARCH
        data = read_entries(path)
        if data is None:
            with writing(directory):
                directory.mkdir(parents=True, exist_ok=True)
            state = cls(path, spec, [{}], batch)
            state.add([])
            return state
        with sound_entries(path):
            previous = validate_data({**data.pop("search"), "trials": spec.trials}, SearchSpec)
            points, batch = [dict(point) for point in data.pop("points")], int(data.pop("batch"))
            if data:
                raise ValueError(f"unknown entries: {', '.join(data)}")
        if previous != spec:
            raise FileError(
                f"{directory} holds a search with other ranges or options", hint="Choose another directory: -o DIR."
            )
        return cls(path, spec, points, batch)

    def add(self, points: list[dict[str, Any]]) -> None:
        """Add settings, and write the file."""
        self.points += points
        search = self._spec.model_dump(mode="json", exclude={"trials"})
        write_entries(self._path, {"search": search, "batch": self.batch, "points": self.points})
