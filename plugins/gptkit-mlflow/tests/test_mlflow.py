"""Runs of the tracker, read from their store with MLflow's client."""

from __future__ import annotations

import json
import logging
import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gptkit_mlflow import tracker as module
from gptkit_mlflow.tracker import MlflowSpec
from mlflow import MlflowClient
from mlflow.entities import Run

import gptkit
from gptkit.kinds.tracker import Tracker, TrackerSpec, TrainingStart
from gptkit.testing import parametrize_checks

SPEC = """
tokenizer: byte
model: {d_model: 8, n_layers: 1, context_length: 16, attention: {name: multi-head, n_heads: 1}}
data: {name: text, path: data}
training: {steps: 4, batch_size: 2, log_every: 1, trackers: [mlflow]}
"""


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The store of a test: a directory, since creating the tables of SQLite takes seconds."""
    for name in ("EXPERIMENT_NAME", "EXPERIMENT_ID", "RUN_ID"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    return (tmp_path / "store").as_uri()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec and its corpus; the current directory is an empty one."""
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "data" / "text.txt").write_text("once upon a time there was a text. " * 60, encoding="utf-8")
    (project / "gpt.yaml").write_text(SPEC, encoding="utf-8")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return project


def tracker(**fields: Any) -> Tracker:
    spec = gptkit.default_registry().component("tracker", "mlflow").model_validate({"name": "mlflow", **fields})
    assert isinstance(spec, TrackerSpec)
    return spec.build()


def start(directory: Path, step: int = 0, **spec: Any) -> TrainingStart:
    directory.mkdir(parents=True, exist_ok=True)
    return TrainingStart(directory, step, 10, {"model": {"d_model": 8, "tied": True}, "name": "naïve", **spec})


def runs(store: str, experiment: str = "gptkit") -> list[Run]:
    """Return the runs of an experiment, the earliest first."""
    client = MlflowClient(store)
    existing = client.get_experiment_by_name(experiment)
    return [] if existing is None else list(client.search_runs([existing.experiment_id], order_by=["start_time ASC"]))


def points(store: str, run: Run, name: str) -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in MlflowClient(store).get_metric_history(run.info.run_id, name)]


def artifact(store: str, run: Run, path: str, directory: Path) -> str:
    directory.mkdir(exist_ok=True)
    file = MlflowClient(store).download_artifacts(run.info.run_id, path, str(directory))
    return Path(file).read_text(encoding="utf-8")


def test_metrics_samples_spec_and_summary_are_read_back(tmp_path: Path, store: str) -> None:
    written = tracker(experiment="tiny", run_name="first", tags={"team": "a"})
    written.on_start(start(tmp_path / "run", long="x" * 7000, **{f"field{i}": i for i in range(150)}))
    written.on_metrics(0, {"validation_loss": 5.5, "validation_loss/web (2)": 5.25})
    written.on_metrics(1, {"loss": 4.5, "grad_norm": math.inf})
    written.on_metrics(2, {"loss": 4.0})
    written.on_sample(2, "naïve\n🙂")
    (tmp_path / "run" / "summary.json").write_text('{"best_validation_loss": 5.5, "best_step": 0, "flops": null}')
    written.on_end(2, None)
    (run,) = runs(store, "tiny")
    assert (run.info.run_name, run.info.status, run.data.tags["team"]) == ("first", "FINISHED", "a")
    assert points(store, run, "loss") == [(1, 4.5), (2, 4.0)]
    assert points(store, run, "validation_loss.web _2_") == [(0, 5.25)]
    assert points(store, run, "grad_norm")[0][1] > 1e300
    assert points(store, run, "summary.best_validation_loss") == [(2, 5.5)]
    assert "summary.flops" not in run.data.metrics
    assert (run.data.params["model.d_model"], run.data.params["model.tied"]) == ("8", "true")
    assert (run.data.params["name"], run.data.params["long"], run.data.params["field149"]) == ("naïve", "x" * 6000, "149")
    assert artifact(store, run, "samples/step-00000002.txt", tmp_path / "files") == "naïve\n🙂"
    assert json.loads(artifact(store, run, "spec.json", tmp_path / "files"))["long"] == "x" * 7000


def test_resumed_training_continues_its_run_and_a_new_one_does_not(tmp_path: Path, store: str) -> None:
    for step in (0, 2, 0):
        each = tracker()
        each.on_start(start(tmp_path / "run", step, steps=10 + step))
        each.on_metrics(step + 1, {"loss": 1.0})
        each.on_end(step + 1, KeyboardInterrupt() if step == 0 else None)
    continued, new = runs(store)
    assert [step for step, _ in points(store, continued, "loss")] == [1, 3]
    assert [step for step, _ in points(store, new, "loss")] == [1]
    assert (continued.info.status, new.info.status) == ("FINISHED", "KILLED")
    # A parameter cannot change; the spec does.
    assert continued.data.params["steps"] == "10"
    assert json.loads(artifact(store, continued, "spec.json", tmp_path / "files"))["steps"] == 12


def test_resumed_training_in_another_store_is_a_new_run(tmp_path: Path, store: str) -> None:
    other = (tmp_path / "other").as_uri()
    for step, uri in ((0, None), (1, other)):
        each = tracker(tracking_uri=uri)
        each.on_start(start(tmp_path / "run", step))
        each.on_end(step, None)
    assert runs(store)[0].info.run_id != runs(other)[0].info.run_id


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (KeyboardInterrupt(), "KILLED"), (ValueError("not finite"), "FAILED")]
)
def test_the_end_of_a_training_is_the_status_of_its_run(
    tmp_path: Path, store: str, error: BaseException | None, status: str
) -> None:
    each = tracker()
    each.on_start(start(tmp_path / "run"))
    (tmp_path / "run" / "summary.json").write_text('{"best_step": 7}')  # that of an earlier part, if this one failed
    each.on_end(3, error)
    (run,) = runs(store)
    assert run.info.status == status
    assert ("summary.best_step" in run.data.metrics) == (status != "FAILED")


def test_trainings_at_once_are_runs_of_the_experiment_of_their_directory(tmp_path: Path, store: str) -> None:
    trials = [tmp_path / "sizes" / "trials" / name for name in ("small-0", "large-0")]
    both = [tracker() for _ in trials]
    (tmp_path / "sizes").mkdir()
    (tmp_path / "sizes" / "experiment.json").write_text("{}")
    for each, directory in zip(both, trials, strict=True):
        each.on_start(start(directory))
    for loss, each in enumerate(both):
        each.on_metrics(1, {"loss": float(loss)})
        each.on_end(1, None)
    recorded = {run.info.run_name: run for run in runs(store, "sizes")}
    assert points(store, recorded["small-0"], "loss") == [(1, 0.0)]
    assert points(store, recorded["large-0"], "loss") == [(1, 1.0)]


def test_variables_apply_to_what_the_spec_does_not_set(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of-variable")
    for name, fields in {"one": {}, "two": {"experiment": "own"}}.items():
        each = tracker(**fields)
        each.on_start(start(tmp_path / name))
        each.on_end(0, None)
    assert [run.info.run_name for run in runs(store, "of-variable")] == ["one"]
    assert [run.info.run_name for run in runs(store, "own")] == ["two"]


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_server_that_does_not_answer_delays_no_step(
    tmp_path: Path, silent_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_END_TIMEOUT", 0.2)
    each = tracker(tracking_uri=silent_server)
    begin = time.monotonic()
    each.on_start(start(tmp_path / "run"))
    for step in range(100):
        each.on_metrics(step, {"loss": 1.0})
    with pytest.raises(TimeoutError, match=r"not everything was recorded within 0\.2 s"):
        each.on_end(100, None)
    assert time.monotonic() - begin < 5


def test_server_that_is_down_disables_the_tracker_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # a port on which nothing listens
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with caplog.at_level(logging.WARNING, "gptkit"):
        assert gptkit.train(str(project / "gpt.yaml"), str(project / "run")).finished
    messages = [each.getMessage() for each in caplog.records if "tracker" in each.getMessage()]
    assert len(messages) == 1
    assert messages[0].startswith("tracker 'mlflow' failed and is disabled for the rest of the training")


def test_a_run_whose_recording_failed_is_ended(project: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: MlflowClient, run_id: str, text: str, file: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MlflowClient, "log_text", refuse)
    spec = (project / "gpt.yaml").read_text(encoding="utf-8")
    (project / "gpt.yaml").write_text(spec.replace("steps: 4", "steps: 4, sample_every: 1"), encoding="utf-8")
    assert gptkit.train(str(project / "gpt.yaml"), str(project / "run")).finished
    (run,) = runs(store)
    assert run.info.status == "FAILED"


def test_training_without_a_tracking_uri_records_in_its_directory(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    gptkit.train(str(project / "gpt.yaml"), str(project / "run"))
    gptkit.resume(str(project / "run"), **{"training.steps": 6})
    store = f"sqlite:///{project / 'run' / 'mlflow' / 'mlflow.db'}"
    (run,) = runs(store)
    lines = [json.loads(line) for line in (project / "run" / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "validation_loss", "grad_norm", "validation_bits_per_byte"):
        assert points(store, run, name) == [(line["step"], line[name]) for line in lines if name in line]
    summary = json.loads((project / "run" / "summary.json").read_text())
    assert run.data.metrics["summary.best_validation_loss"] == summary["best_validation_loss"]
    assert run.data.params["model.context_length"] == "16"
    assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(project / "run" / "mlflow")
    assert json.loads(artifact(store, run, "spec.json", tmp_path / "files"))["training"]["steps"] == 6
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@parametrize_checks(MlflowSpec)
def test_conformance(spec: Any, check: Any) -> None:
    check(spec)
