"""`gptkit scaling`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gptkit.experiments.planning import Planned
from gptkit.experiments.results import Trial, write_trial
from gptkit.experiments.running import Progress
from tests.support.command_line import Call, write_project

LADDER = ("--sizes", "8x1,16x1,24x1", "--predict", "32x1", "--seeds", "2", "-o", "ladder")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a spec and its corpus in the current directory."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trainings without computation, whose loss is a power law; the list has the size of each."""
    sizes: list[str] = []

    def run_trials(
        planned: Planned, directory: Path, trials: Sequence[Trial], jobs: int, report: Callable[[Progress], None]
    ) -> None:
        for done, trial in enumerate(trials, 1):
            variant = planned.experiment.variant(trial.variant)
            loss = 1.5 + 20 * variant.parameters**-0.3 + 0.001 * (trial.seed - 0.5)
            result = Trial(trial.variant, trial.seed, "finished", validation_loss=loss, tokens=96)
            write_trial(result, directory)
            sizes.append(str(variant.size))
            report(Progress(result, 1.0, done, len(trials), 0.0))

    monkeypatch.setattr("gptkit.experiments.ladder.run_trials", run_trials)
    return sizes


def test_only_what_is_missing_is_trained(call: Call, project: Path, trained: list[str]) -> None:
    first = json.loads(call("scaling", "mini.yaml", *LADDER, "--json", "-q").stdout)
    assert trained == ["8x1", "8x1", "16x1", "16x1", "24x1", "24x1"]
    assert first["prediction"]["measured"] is None
    assert "--check" not in first["command"]
    trained.clear()
    second = json.loads(call("scaling", "mini.yaml", *LADDER, "--check", "--json", "-q").stdout)
    assert trained == ["32x1", "32x1"]
    assert second["prediction"]["mean"] == first["prediction"]["mean"]
    row = second["rows"][-1]
    assert second["prediction"]["measured"] == pytest.approx(1.5 + 20 * row["parameters"] ** -0.3)
    assert second["prediction"]["error"] == pytest.approx(0, abs=0.05)
    assert second["unit"] == "parameters"
    assert (project / "ladder" / "scaling.html").is_file()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (("--sizes", "8x1,16x1"), "2 sizes below the predicted one, and a fit needs 3"),
        (("--sizes", "8x1,8x1,16x1"), "2 sizes below the predicted one, and a fit needs 3"),
        (("--sizes", "8x1,16x1,24x1", "--floor"), r"and a fit needs 4\n.*--sizes, or omit --floor"),
    ],
)
def test_sizes_that_cannot_be_fitted_are_refused_before_the_training(
    call: Call, project: Path, trained: list[str], sizes: tuple[str, ...], message: str
) -> None:
    result = call("scaling", "mini.yaml", *sizes, "--predict", "32x1", "--seeds", "2", "-o", "ladder", code=2)
    assert re.search(message, result.stderr)
    assert not trained


@pytest.mark.slow
def test_command_in_the_report_repeats_the_experiment(call: Call, project: Path, trained: list[str]) -> None:
    first = json.loads(call("scaling", "mini.yaml", *LADDER, "-s", "model.norm=rms", "--by", "flops", "--json", "-q").stdout)
    assert first["unit"] == "FLOPs per token"
    again = json.loads(call(*first["command"].split()[1:], "--json", "-q").stdout)
    assert again == first
    assert len(trained) == 6


def test_result_is_printed(call: Call, project: Path, trained: list[str]) -> None:
    result = call("scaling", "mini.yaml", *LADDER, "--check")
    assert "Fitted law: loss = " in result.stdout
    assert "32x1 (predicted)" in result.stdout
    assert "report: ladder/scaling.html" in result.stderr


def test_layers_that_are_listed_are_unchanged(call: Call, project: Path, trained: list[str]) -> None:
    arguments = ("--sizes", "8,16,24", "--predict", "32", "-s", "model.layers=[{repeat: 2}]", "--seeds", "2", "-o", "ladder")
    result = json.loads(call("scaling", "mini.yaml", *arguments, "--json", "-q").stdout)
    assert [row["size"] for row in result["rows"]] == ["8", "16", "24", "32"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sizes", "8by1,16x1"), "--sizes 8by1: expected WIDTH or WIDTHxLAYERS"),
        (("--by", "seconds"), "--by seconds: unknown measure"),
        (("--sizes", "8x1,16x1,32x1", "--predict", "32x1"), "the size 32x1 is predicted, so it cannot be in the ladder"),
        (("--sizes", "8x1,9x1,16x1", "--predict", "32x1"), "d_model"),
        (("--predict", "32x1", "-s", "model.d_model=16"), "--set model.d_model is replaced by that of the predicted size"),
    ],
)
def test_errors_are_messages(call: Call, project: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in " ".join(call("scaling", "mini.yaml", *arguments, "-o", "ladder", code=2).stderr.split())


@pytest.mark.slow
def test_ladder_is_trained(call: Call, project: Path) -> None:
    result = json.loads(call("scaling", "mini.yaml", *LADDER, "--check", "--json", "-q").stdout)
    assert [row["seeds"] for row in result["rows"]] == [2, 2, 2, 2]
    assert result["prediction"]["low"] <= result["prediction"]["mean"] <= result["prediction"]["high"]
