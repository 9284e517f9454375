"""Comparisons with tiny models: what is trained, recorded, resumed and isolated."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import gptkit
from gptkit.core.errors import FileError, GptkitError
from gptkit.experiments.comparison import Comparison, command_of
from gptkit.experiments.report import write_report
from gptkit.experiments.request import ComparisonSpec
from gptkit.experiments.results import Experiment, Trial, read_experiment, write_experiment, write_trial
from gptkit.files import validate_data
from gptkit.training.metrics import Metrics
from tests.support.command_line import Call, write_project
from tests.support.experiments import experiment

POSITIONS = {"model.position": ["learned", "alibi"]}
QUICK: dict[str, Any] = {"changes": {"training.sample_tokens": 4}, "progress": False, "jobs": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A comparison of two positions with two seeds. Not to be changed."""
    directory = tmp_path_factory.mktemp("compared")
    write_project(directory)
    options = {**QUICK, "jobs": 2}
    return gptkit.compare(directory / "mini.yaml", POSITIONS, seeds=2, directory=directory / "out", **options)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_trial_is_trained_and_evaluated(finished: Comparison) -> None:
    assert finished.finished
    assert [(trial.variant, trial.seed) for trial in finished.experiment.trials] == [
        (variant.key, seed) for variant in finished.experiment.variants for seed in (0, 1)
    ]
    for trial in finished.experiment.trials:
        assert trial.status == "finished"
        assert trial.validation_loss is not None
        assert 2 < trial.validation_loss < 8
        assert trial.bits_per_byte == pytest.approx(trial.validation_loss / math.log(2), rel=0.02)  # byte tokenizer
        assert trial.tokens == 3 * 2 * 16
        assert trial.curve[-1][:2] == (3, trial.tokens)
        assert trial.loss_by_position is not None
        assert len(trial.loss_by_position) == 16
        assert len(trial.samples) == 3
        assert trial.decode_tokens_per_second is not None
        assert trial.run is not None
        assert gptkit.load(finished.directory / trial.run).finished


def test_losses_by_position_average_to_the_loss(finished: Comparison) -> None:
    trial = finished.experiment.trials[0]
    assert trial.run is not None
    assert trial.loss_by_position is not None
    run = gptkit.load(finished.directory / trial.run)
    losses = run.evaluate()["loss"]
    # The shorter data window at the end of the validation split has no share in the positions.
    assert math.fsum(trial.loss_by_position) / 16 == pytest.approx(losses, rel=0.02)


def test_losses_beyond_the_trained_length_need_positions(finished: Comparison) -> None:
    for variant in finished.experiment.variants:
        for trial in finished.experiment.trials_of(variant.key):
            if variant.choices["model.position"] == "learned":
                assert trial.loss_beyond is None
            else:
                assert trial.loss_beyond is not None
                assert len(trial.loss_beyond) == 16


def test_trials_of_a_seed_have_the_same_data(finished: Comparison) -> None:
    directories = [finished.directory / str(trial.run) / "data" for trial in finished.experiment.trials]
    sources = {json.loads((directory / "meta.json").read_text())["directory"] for directory in directories}
    assert len(sources) == 1
    assert finished.directory.absolute() in Path(sources.pop()).parents
    specs = [json.loads(json.dumps(variant.spec)) for variant in finished.experiment.variants]
    for spec in specs:
        del spec["model"]
    assert specs[0] == specs[1]


def test_rows_have_the_choices_and_measurements(finished: Comparison) -> None:
    rows = finished.rows
    assert [row["model.position"] for row in rows] == ["learned", "learned", "alibi", "alibi"]
    assert all(row["parameters"] > 0 and row["cache_bytes_per_token"] == 2 * 16 * 4 for row in rows)
    assert "position=alibi" in finished._repr_html_()
    assert "4 of 4 trials" in repr(finished)
    assert len(finished.results) == 4


def test_finished_trials_are_not_trained_again(finished: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail("a trial was started"))
    spec = finished.directory.parent / "mini.yaml"
    again = gptkit.compare(spec, POSITIONS, seeds=2, directory=finished.directory, **QUICK)
    assert again.experiment.trials == finished.experiment.trials


def test_experiment_of_a_version_with_fewer_fields_is_continued(
    finished: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = shutil.copytree(finished.directory, tmp_path / "out")
    data = json.loads((directory / "experiment.json").read_text())
    del data["sha256"]
    for index, variant in enumerate(data["variants"]):
        # As if the version that wrote it had not had this field, so that all hashes were others.
        del variant["spec"]["training"]["keep_checkpoints"]
        variant["key"] = f"{index:012d}"
        variant["spec_hash"] = variant["key"] * 5
    old = {variant.key: f"{index:012d}" for index, variant in enumerate(finished.experiment.variants)}
    (directory / "experiment.json").write_text(json.dumps(data))
    for trial in finished.experiment.trials:
        (directory / "trials" / f"{trial.key}.json").unlink()
        write_trial(dataclasses.replace(trial, variant=old[trial.variant]), directory)
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail("a trial was started"))
    spec = finished.directory.parent / "mini.yaml"
    again = gptkit.compare(spec, POSITIONS, seeds=2, directory=directory, **QUICK)
    assert [variant.key for variant in again.experiment.variants] == list(old.values())
    assert [trial.validation_loss for trial in again.experiment.trials] == [
        trial.validation_loss for trial in finished.experiment.trials
    ]


@pytest.mark.slow
def test_values_and_seeds_are_added_to_an_experiment(project: Path) -> None:
    first = gptkit.compare("mini.yaml", POSITIONS, seeds=1, directory="out", **QUICK)
    times = {path: path.stat().st_mtime_ns for path in Path("out/trials").glob("*.json")}
    more = {"model.position": [*POSITIONS["model.position"], "none"]}
    second = gptkit.compare("mini.yaml", more, seeds=1, directory="out", **QUICK)
    assert len(second.experiment.trials) == 3
    assert second.experiment.trials[:2] == first.experiment.trials
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.slow
def test_failing_variant_is_isolated_and_reported(project: Path, call: Call) -> None:
    rates = {"training.optimizer.learning_rate": [1e-3, 1e30]}
    result = gptkit.compare("mini.yaml", rates, seeds=1, directory="out", **QUICK)
    good, bad = result.experiment.trials
    assert good.status == "finished"
    assert bad.status == "failed"
    assert bad.message is not None
    assert "not finite" in bad.message
    # Repeated, it is not trained again.
    command = ("compare", "mini.yaml", "--vary", "training.optimizer.learning_rate=1e-3,1e30", "--seeds", "1", "-o", "out")
    options = ("--set", "training.sample_tokens=4")
    repeated = call(*command, *options)
    assert "0 trials to train" in repeated.stderr
    assert "not finite" in repeated.stderr


@pytest.mark.slow
def test_failed_trials_are_trained_again_on_request(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", killed)
        gptkit.compare("mini.yaml", POSITIONS, seeds=1, directory="out", **QUICK)
    result = gptkit.compare("mini.yaml", POSITIONS, seeds=1, directory="out", retry_failed=True, **QUICK)
    assert [trial.status for trial in result.experiment.trials] == ["finished", "finished"]


def killed(command: list[str], start: Any = subprocess.Popen, **options: Any) -> Any:
    """Start a process that is killed."""
    return start([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], **options)


def test_killed_process_is_recorded_as_a_failure(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", killed)
    result = gptkit.compare("mini.yaml", POSITIONS, seeds=1, directory="out", **QUICK)
    assert [trial.status for trial in result.experiment.trials] == ["failed", "failed"]
    assert "killed, probably because memory ran out" in str(result.experiment.trials[0].message)


@pytest.mark.slow
def test_parts_of_a_job_array_are_disjoint_and_complete(project: Path, call: Call) -> None:
    command = ("compare", "mini.yaml", "--vary", "model.position=learned,alibi", "--seeds", "1", "-o", "out")
    options = ("--set", "training.sample_tokens=4")
    assert "1 trial missing" in call(*command, *options, "--only", "1/2").stderr
    last = call(*command, *options, "--only", "2/2")
    assert "missing" not in last.stderr
    assert "alibi" in last.stdout


def test_directories_with_other_files_are_refused(project: Path) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    with pytest.raises(FileError, match=r"not an experiment, but contains notes\.txt"):
        gptkit.compare("mini.yaml", POSITIONS, directory="mine", **QUICK)
    with pytest.raises(FileError, match="is a file"):
        gptkit.compare("mini.yaml", POSITIONS, directory="mine/notes.txt", **QUICK)
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]


def test_another_experiment_is_not_replaced(finished: Comparison) -> None:
    before = (finished.directory / "experiment.json").read_bytes()
    spec = finished.directory.parent / "mini.yaml"
    with pytest.raises(FileError, match="holds the experiment 'mini'"):
        gptkit.compare(spec, {"training.clip": [0.5, 2.0]}, seeds=1, directory=finished.directory, **QUICK)
    assert (finished.directory / "experiment.json").read_bytes() == before


@pytest.mark.parametrize("entries", [{}, {"variants": 3}, {"variants": [{"key": "a"}]}, {"seeds": None}, {"more": 1}])
def test_entries_of_another_form_are_reported(tmp_path: Path, entries: dict[str, Any]) -> None:
    write_experiment(experiment({"model.norm": ["rms", "layer"]}, lambda *_: 1.0), tmp_path)
    file = tmp_path / "experiment.json"
    data = {**json.loads(file.read_text(encoding="utf-8")), **entries}
    del data["sha256"]  # files of earlier versions have none
    if not entries:
        del data["variants"]
    file.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(FileError, match=r"experiment\.json is damaged"):
        read_experiment(tmp_path)


def test_changed_values_are_reported(tmp_path: Path) -> None:
    """A number that is still a number, or a text that is still a text."""
    made = experiment({"model.norm": ["rms", "layer"]}, lambda *_: 1.0)
    write_experiment(made, tmp_path)
    write_trial(made.trials[0], tmp_path)
    trial = tmp_path / "trials" / f"{made.trials[0].key}.json"
    for file, old, new in ((tmp_path / "experiment.json", "layer", "lazer"), (trial, "102400", "102409")):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(old, new, 1), encoding="utf-8")
        assert file.read_text(encoding="utf-8") != text
        with pytest.raises(FileError, match=rf"{file.name} is damaged: it has changed since it was written"):
            read_experiment(tmp_path)
        file.write_text(text, encoding="utf-8")
    assert read_experiment(tmp_path).variants == made.variants


def test_damaged_files_are_reported(project: Path) -> None:
    with pytest.raises(FileError, match="is not an experiment"):
        read_experiment(project)
    (project / "experiment.json").write_text("{}")
    with pytest.raises(FileError, match="not a file of an experiment"):
        read_experiment(project)
    (project / "experiment.json").write_text("{")
    with pytest.raises(FileError, match="damaged"):
        read_experiment(project)


def test_trials_survive_writing_and_reading(finished: Comparison, tmp_path: Path) -> None:
    trial = finished.experiment.trials[0]
    write_trial(trial, tmp_path)
    (tmp_path / "experiment.json").write_bytes((finished.directory / "experiment.json").read_bytes())
    experiment = read_experiment(tmp_path)
    assert experiment.trials[0] == trial
    assert experiment.trials[1] == Trial(trial.variant, 1, "missing")
    assert experiment.variants == finished.experiment.variants


def test_command_repeats_the_request(finished: Comparison) -> None:
    fields = {
        "base": "mini.yaml",
        "vary": {"model.feedforward": ["gated", {"name": "mlp", "d_hidden": 8}], "model.norm": ["rms", "layer"]},
        "set": {"training.steps": 2},
        "seeds": [3],
        "match": "parameters",
        "learning_rates": [0.001, 0.01],
    }
    command = command_of(validate_data(fields, ComparisonSpec), Path("out"))
    assert command == (
        "gptkit compare mini.yaml --vary 'model.feedforward=gated,{name: mlp, d_hidden: 8}' --vary model.norm=rms,layer "
        "--set training.steps=2 --seeds 3, --match parameters --learning-rates 0.001,0.01 -o out"
    )


def test_errors_name_the_option_and_the_remedy(project: Path, call: Call) -> None:
    for arguments, message in (
        (("--vary", "model.position"), "--vary model.position: expected"),
        (("--vary", "model.position=none"), "give at least two, or use --set model.position=VALUE"),
        (("--vary", "model.position=none,none"), "vary: model.position has a value twice"),
        (("--vary", "model.position=none,rotatory"), "rotatory"),
        (("--vary", "model.norm=rms,layer", "--match", "size"), "match"),
        (("--vary", "model.norm=rms,layer", "--vary", "model.norm=rms,layer"), "given twice"),
        (("--vary", "model.norm=rms,layer", "--only", "3"), "--only 3"),
        (("--vary", "model.norm=rms,layer", "--seeds", "0"), "seeds: give a number of seeds from 1"),
        ((), "nothing is compared; add vary, such as --vary model.position=learned,rotary"),
    ):
        result = call("compare", "mini.yaml", *arguments, "-o", "out", code=2)
        assert message in " ".join(result.stderr.split())
    assert not Path("out").exists()


@pytest.mark.slow
def test_matched_variants_are_trained_as_matched(project: Path) -> None:
    feedforwards = {"model.feedforward": ["gated", "mlp"]}
    result = gptkit.compare("mini.yaml", feedforwards, seeds=1, match="parameters", directory="out", **QUICK)
    base, other = result.experiment.variants
    assert base.matched is None
    assert "model.feedforward.d_hidden = " in str(other.matched)
    assert other.parameters == pytest.approx(base.parameters, rel=0.01)
    run = gptkit.load(Path("out") / str(result.experiment.trials[1].run))
    assert sum(each.numel() for each in run.model.parameters()) == other.parameters


@pytest.mark.slow
def test_missing_validation_split_fails_the_trial_with_its_remedy(project: Path) -> None:
    options = {**QUICK, "changes": {"data.validation": 0.0}}
    result = gptkit.compare("mini.yaml", POSITIONS, seeds=1, directory="out", **options)
    assert {trial.status for trial in result.experiment.trials} == {"failed"}
    assert "no validation split" in str(result.experiment.trials[0].message)


SCRIPT = """
import gptkit
gptkit.compare("mini.yaml", {"model.position": ["none", "learned"]}, seeds=2,
    directory="out", jobs=2, changes={"training.steps": 60, "training.checkpoint_every": 20, "training.sample_tokens": 0})
"""


def start(project: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    return subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=project, env=environment, stdout=subprocess.DEVNULL)


def wait_for(project: Path, pattern: str, number: int) -> None:
    end = time.monotonic() + 6000
    while len(list((project / "out").glob(pattern))) < number:
        assert time.monotonic() < end, f"no {pattern}"
        time.sleep(0.02)


def contents(experiment: Any) -> list[Any]:
    """Return the results without times and memory."""
    measured = ("seconds", "tokens_per_second", "decode_tokens_per_second", "peak_memory")
    return [{**vars(trial), **dict.fromkeys(measured)} for trial in experiment.trials]


def reported(experiment: Experiment, directory: Path) -> dict[str, bytes]:
    """Return the files of the report on results without times and memory."""
    measured = dict.fromkeys(("seconds", "tokens_per_second", "decode_tokens_per_second", "peak_memory"))
    trials = tuple(dataclasses.replace(trial, **measured) for trial in experiment.trials)
    directory.mkdir()
    write_report(dataclasses.replace(experiment, trials=trials), directory)
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a matter of POSIX")
@pytest.mark.slow
def test_killed_comparison_finishes_only_what_is_missing(project: Path) -> None:
    process = start(project)
    wait_for(project, "trials/*.json", 1)
    wait_for(project, "trials/*/checkpoints/*", 1)
    process.kill()
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in (project / "out" / "trials").glob("*.json")}
    assert 1 <= len(done) < 4
    assert start(project).wait() == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    resumed = read_experiment(project / "out")
    assert {trial.status for trial in resumed.trials} == {"finished"}
    (project / "out").rename(project / "killed")
    assert start(project).wait() == 0
    whole = read_experiment(project / "out")
    assert contents(resumed) == contents(whole)
    # The reports are the same, byte for byte, but for what clocks and the system's memory counter say.
    reports = [reported(each, project / name) for each, name in ((resumed, "resumed"), (whole, "whole"))]
    assert reports[0] == reports[1]
    assert {"report.html", "report.md", "report/trials.csv", "report/effects.csv"} <= set(reports[0])


@pytest.mark.skipif(sys.platform == "win32", reason="signals are a matter of POSIX")
@pytest.mark.slow
def test_interrupt_saves_checkpoints_and_leaves_no_process(project: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    command = [sys.executable, "-m", "gptkit", "compare", "mini.yaml", "--vary", "model.norm=rms,layer", "--seeds", "1"]
    command += ["--set", "training.steps=100000", "--set", "training.checkpoint_every=1000000", "-o", "out"]
    process = subprocess.Popen(
        command,
        cwd=project,
        env=environment,
        stderr=subprocess.PIPE,
        # Processes of a shell's background job, such as these tests, inherit that it is ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(project, "trials/*/metrics.jsonl", 1)
    metrics = next((project / "out" / "trials").glob("*/metrics.jsonl"))
    end = time.monotonic() + 600
    while not any(Metrics.read(metrics).get("step", [])):  # before the first step there is nothing to save
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(600) == 130
    run = metrics.parent
    assert gptkit.load(run).step > 0
    # No process holds the lock of the run.
    with pytest.raises(GptkitError, match="holds a run"):
        gptkit.train("mini.yaml", run, progress=False)
