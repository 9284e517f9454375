"""`gptkit search`: proposals, and a search that is interrupted and continued."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import gptkit
from gptkit.core.errors import FileError, GptkitError, RequirementError
from gptkit.experiments.planning import Planned
from gptkit.experiments.proposals import propose
from gptkit.experiments.results import Trial, write_trial
from gptkit.experiments.running import Progress
from gptkit.experiments.search_spec import Range, SearchSpec, parse_range
from gptkit.files import validate_data
from tests.support.command_line import Call, write_project

RATE = "training.optimizer.learning_rate"
RANGES: dict[str, dict[str, Any]] = {
    RATE: {"low": 1e-4, "high": 1e-1, "log": True},
    "model.n_layers": {"low": 1, "high": 3},
    "model.norm": {"values": ["layer", "rms"]},
}
OPTIONS = ("--range", f"{RATE}=1e-4..1e-1:log", "--range", "model.n_layers=1..3", "--range", "model.norm=layer,rms")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a spec and its corpus in the current directory."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loss_of(spec: Mapping[str, Any]) -> float:
    """Return the loss of a training that is not made: lowest at a rate of 0.01, one layer more is better, as is rms."""
    rate = spec["training"]["optimizer"]["learning_rate"]
    norm = spec["model"]["norm"]["name"] == "layer"
    return 2 + abs(math.log10(rate) + 2) + 0.1 * (3 - spec["model"]["n_layers"]) + 0.05 * norm


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trainings without computation; the list has the variant and seed of each."""
    keys: list[str] = []

    def run_trials(
        planned: Planned, directory: Path, trials: Sequence[Trial], jobs: int, report: Callable[[Progress], None]
    ) -> None:
        for done, trial in enumerate(trials, 1):
            loss = loss_of(planned.experiment.variant(trial.variant).spec) + 0.001 * trial.seed
            result = Trial(trial.variant, trial.seed, "finished", validation_loss=loss, tokens=96)
            write_trial(result, directory)
            keys.append(trial.key)
            report(Progress(result, 1.0, done, len(trials), 0.0))

    monkeypatch.setattr("gptkit.experiments.comparison.run_trials", run_trials)
    return keys


def spec_of(**fields: Any) -> SearchSpec:
    return validate_data({"base": "mini.yaml", "ranges": RANGES, **fields}, SearchSpec)


def test_proposals_are_within_the_ranges_and_differ() -> None:
    points = propose(spec_of(sampler="random"), [], 40)
    assert len(points) == 40
    assert len({json.dumps(point) for point in points}) == 40
    assert all(1e-4 <= point[RATE] <= 1e-1 and point["model.n_layers"] in (1, 2, 3) for point in points)
    assert {point["model.norm"] for point in points} == {"layer", "rms"}
    # Logarithmic: about a third of the rates in each of three decades.
    assert all(5 <= sum(low <= point[RATE] < 10 * low for point in points) <= 25 for low in (1e-4, 1e-3, 1e-2))


def test_small_ranges_end() -> None:
    spec = spec_of(ranges={"model.n_layers": {"low": 1, "high": 3}, "model.norm": {"values": ["layer", {"name": "rms"}]}})
    points = propose(spec, [({"model.n_layers": 1, "model.norm": "layer"}, 2.0)], 20)
    assert len(points) == 5
    assert {"model.n_layers": 3, "model.norm": {"name": "rms"}} in points


def test_proposals_follow_the_results() -> None:
    """After 30 results, most proposals of the estimator are near the optimum; a third of the random ones would be."""
    spec = spec_of(ranges={RATE: RANGES[RATE]})
    known: list[tuple[Mapping[str, Any], float | None]] = [
        (point, abs(math.log10(point[RATE]) + 2)) for point in propose(spec_of(ranges=spec.ranges, sampler="random"), [], 30)
    ]
    near = [3e-3 < point[RATE] < 3e-2 for point in propose(spec, known, 12)]
    assert sum(near) >= 8


def test_equal_results_give_equal_proposals() -> None:
    known = [(point, float(index)) for index, point in enumerate(propose(spec_of(), [], 12))]
    assert propose(spec_of(), known, 3) == propose(spec_of(), known, 3)
    assert propose(spec_of(), known, 3) != propose(spec_of(seed=1), known, 3)
    # A failed setting counts as the worst.
    assert propose(spec_of(), [*known[:-1], (known[-1][0], None)], 1)


@pytest.mark.slow
def test_search_finds_the_best_setting(project: Path, trained: list[str]) -> None:
    result = gptkit.search("mini.yaml", RANGES, trials=14, directory="out", jobs=2, note=lambda text: None)
    assert result.best is not None
    assert result.best.row.measure is not None
    assert result.best.row.measure.mean < 2.5
    assert len(result.tried) == 15
    assert len(trained) == len(set(trained)) == 15
    assert [each.row.measure.mean for each in result.tried if each.row.measure] == sorted(
        each.row.measure.mean for each in result.tried if each.row.measure
    )
    assert {} in [each.point for each in result.tried]
    assert result.comparison.report.is_file()


@pytest.mark.slow
def test_interrupted_search_proposes_the_same(project: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(directory: str, trials: int = 8) -> gptkit.experiments.search.Search:  # type: ignore[name-defined]
        return gptkit.search("mini.yaml", RANGES, trials=trials, directory=directory, jobs=2, note=lambda text: None)

    whole = run("whole")
    count = len(trained)
    real = propose

    def stop(spec: SearchSpec, known: Any, count: int) -> Any:
        if len(known) >= 4:
            raise KeyboardInterrupt
        return real(spec, known, count)

    with monkeypatch.context() as patched:
        patched.setattr("gptkit.experiments.search.propose", stop)
        with pytest.raises(KeyboardInterrupt):
            run("stopped")
    resumed = run("stopped")
    assert len(trained) == 2 * count  # nothing twice
    assert [each.point for each in resumed.tried] == [each.point for each in whole.tried]
    assert len(run("stopped", 9).tried) == 10


def test_command_confirms_with_new_seeds(call: Call, project: Path, trained: list[str]) -> None:
    printed = call("search", "mini.yaml", *OPTIONS, "--trials", "5", "--confirm", "3", "-o", "out", "-q").stdout
    assert "The best setting: --set training.optimizer.learning_rate=" in printed
    assert "better than base" in printed
    seeds = [trial.seed for trial in gptkit.experiments.results.read_experiment(Path("out/confirmed")).trials]
    assert seeds == [1, 2, 3, 1, 2, 3]
    trained.clear()
    call("search", "mini.yaml", *OPTIONS, "--trials", "5", "--confirm", "3", "-o", "out", "-q")
    assert trained == []


def test_invalid_settings_are_reported_and_the_others_trained(call: Call, project: Path, trained: list[str]) -> None:
    ranges = ("--range", "model.attention.n_heads=1..3")  # the width is not divisible by three
    run = call("search", "mini.yaml", *ranges, "--trials", "3", "-o", "out", "-q")
    assert "n_heads=3" in run.stderr
    assert "divi" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing option"),
        (("--range", "model.n_layers"), "expected a dotted path"),
        (("--range", "model.n_layers=3"), "at least two"),
        (("--range", "model.n_layers=3..1"), "low must be below high"),
        (("--range", "model.n_layers=1..x"), "the limits of a range are numbers such as 1000"),
        (("--range", "training.steps=1k..2k"), "the limits of a range are numbers such as 1000"),
        (("--range", "model.n_layers=0..4:log"), "requires low above 0"),
        (("--range", "model.n_layers=1..4:0.5"), "whole step"),
        (("--range", "model.n_layers=1..4", "--range", "model.n_layers=1..2"), "given twice"),
        (("--range", "model.nlayers=1..4"), "--range model.nlayers: model.nlayers: unknown key"),
        (("--range", "model.norm="), "Write --range PATH=VALUE,VALUE"),
        (("--range", "model.norm=[rms,layer"), "--range model.norm=[rms,layer: not valid YAML"),
        (("--range", "model.n_layers=1..4", "--sampler", "best"), "sampler"),
        (("--range", "model.n_layers=1..4", "--match", "speed"), "match"),
        (("--range", "model.n_layers=1..4", "--set", "model.norm=rmss"), "rmss"),
    ],
)
def test_errors_are_messages(
    call: Call, project: Path, trained: list[str], arguments: tuple[str, ...], message: str
) -> None:
    run = call("search", "mini.yaml", *arguments, "-o", "out", code=2)
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert trained == []


def test_directories_of_others_are_refused(project: Path, trained: list[str]) -> None:
    (project / "mine").mkdir()
    (project / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match=r"contains notes\.txt"):
        gptkit.search("mini.yaml", RANGES, directory="mine", note=lambda text: None)
    gptkit.search("mini.yaml", RANGES, trials=1, directory="out", note=lambda text: None)
    with pytest.raises(FileError, match="other ranges"):
        gptkit.search("mini.yaml", {RATE: RANGES[RATE]}, trials=1, directory="out", note=lambda text: None)
    (project / "out" / "search.json").write_text("{")
    with pytest.raises(FileError, match=r"search\.json is damaged"):
        gptkit.search("mini.yaml", RANGES, trials=1, directory="out", note=lambda text: None)


def test_missing_optuna_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(RequirementError, match="optuna"):
        gptkit.search("mini.yaml", RANGES, trials=4, directory="out", jobs=2, note=lambda text: None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=1..4", Range(low=1, high=4)),
        ("a.b=1e-4..0.1:log", Range(low=1e-4, high=0.1, log=True)),
        ("a.b=64..256:32", Range(low=64, high=256, step=32)),
        ("a.b=rms,layer", Range(values=("rms", "layer"))),
        ("a.b={name: rms},null", Range(values=({"name": "rms"}, None))),
    ],
)
def test_ranges_are_parsed(text: str, expected: Range) -> None:
    assert parse_range(text) == ("a.b", expected)


def test_values_of_a_range() -> None:
    assert [value for value in (1, 2, 3, 4, 2.0, True) if Range(low=1, high=3).contains(value)] == [1, 2, 3]
    assert [value for value in (64, 80, 96) if Range(low=64, high=96, step=32).contains(value)] == [64, 96]
    with pytest.raises(GptkitError, match="low must be below high"):
        parse_range("a=2..2")
