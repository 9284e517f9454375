"""Offline runs of the tracker, read from the transaction logs that `wandb sync` uploads."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from gptkit_wandb.tracker import WandbSpec, WandbTracker
from wandb.proto.wandb_internal_pb2 import Record

import gptkit
from gptkit.kinds.tracker import Tracker, TrackerSpec, TrainingStart
from gptkit.testing import parametrize_checks


@pytest.fixture(autouse=True)
def session(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A session of wandb without a login, whose own files are in a temporary directory."""
    home = tmp_path_factory.mktemp("home")
    for name in ("API_KEY", "MODE", "PROJECT", "ENTITY", "NAME", "RUN_GROUP", "TAGS", "NOTES", "RUN_ID", "DIR"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(home))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield
    wandb.teardown()


def tracker(**fields: Any) -> Tracker:
    spec = gptkit.default_registry().component("tracker", "wandb").model_validate({"name": "wandb", **fields})
    assert isinstance(spec, TrackerSpec)
    return spec.build()


def start(directory: Path, step: int = 0, **spec: Any) -> TrainingStart:
    directory.mkdir(parents=True, exist_ok=True)
    return TrainingStart(directory, step, 10, {"model": {"d_model": 8}, "name": "naïve", **spec})


def records(log: Path) -> Iterator[Record]:
    """Yield the records of a log: the format of LevelDB's logs, with blocks of 32 KiB, after 7 bytes of wandb's own."""
    data, position, record = log.read_bytes(), 7, b""
    while position + 7 <= len(data):
        rest = 32768 - position % 32768
        if rest < 7:
            position += rest
            continue
        length, kind = struct.unpack("<4xHB", data[position : position + 7])
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield Record.FromString(record)
            record = b""


class Recorded:
    """What one part of a run holds: `run`, `config`, `rows` of the history, `summary`, and the exit code."""

    def __init__(self, log: Path) -> None:
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None
        self.axes: dict[str, str] = {}
        for record in records(log):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self.config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "history":
                row = {"/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                self.rows.append({name: value for name, value in row.items() if not name.startswith("_")})
            elif kind == "summary":
                update = {item.key or "/".join(item.nested_key): item.value_json for item in record.summary.update}
                self.summary |= {name: json.loads(value) for name, value in update.items()}
            elif kind == "metric":
                self.axes[record.metric.glob_name or record.metric.name] = record.metric.step_metric
            elif kind == "exit":
                self.exit_code = record.exit.exit_code


def recorded(directory: Path) -> list[Recorded]:
    """Return the parts of the runs in a run directory, in the order of their start."""
    wandb.teardown()  # waits until all is written, which happens in another process
    logs = (directory / "wandb").glob("offline-run-*/run-*.wandb")
    return [Recorded(log) for log in sorted(logs, key=lambda log: log.stat().st_mtime_ns)]


def test_metrics_samples_spec_and_summary_are_read_back(tmp_path: Path) -> None:
    written = tracker(project="tiny", entity="team", run_name="first", group="all", tags=["a", "b"], notes="why")
    written.on_start(start(tmp_path))
    written.on_metrics(0, {"validation_loss": 5.5, "validation_loss/web": 5.25})
    written.on_metrics(1, {"loss": 4.5, "learning_rate": 0.25})
    written.on_sample(1, "a <b> & c\nd")
    (tmp_path / "summary.json").write_text('{"best_validation_loss": 5.5, "best_step": 0, "flops": null}')
    written.on_end(1, None)
    (result,) = recorded(tmp_path)
    run = result.run
    assert (run.project, run.entity, run.display_name, run.run_group) == ("tiny", "team", "first", "all")
    assert (list(run.tags), run.notes) == (["a", "b"], "why")
    assert (result.config["model"], result.config["name"]) == ({"d_model": 8}, "naïve")
    assert result.rows[:2] == [
        {"step": 0, "validation_loss": 5.5, "validation_loss/web": 5.25},
        {"step": 1, "loss": 4.5, "learning_rate": 0.25},
    ]
    assert result.axes["*"] == "step"
    assert result.rows[2]["step"] == 1
    (page,) = (tmp_path / "wandb").glob("offline-run-*/files/" + result.rows[2]["sample/path"])
    assert page.read_text(encoding="utf-8") == '<pre style="white-space: pre-wrap">a &lt;b&gt; &amp; c\nd</pre>'
    assert (result.summary["best_validation_loss"], result.summary["best_step"]) == (5.5, 0)
    assert "flops" not in result.summary
    assert result.exit_code == 0


def test_resumed_training_continues_its_run_and_a_new_one_does_not(tmp_path: Path) -> None:
    for step in (0, 2, 0):
        each = tracker()
        each.on_start(start(tmp_path, step, steps=10 + step))
        each.on_metrics(step + 1, {"loss": 1.0})
        each.on_end(step + 1, KeyboardInterrupt())
    first, second, new = recorded(tmp_path)
    assert first.run.run_id == second.run.run_id != new.run.run_id
    assert [part.rows[0]["step"] for part in (first, second, new)] == [1, 3, 1]
    assert second.config["steps"] == 12


@pytest.mark.parametrize(("error", "code"), [(None, 0), (KeyboardInterrupt(), 255), (ValueError("not finite"), 1)])
def test_the_end_of_a_training_is_the_state_of_its_run(tmp_path: Path, error: BaseException | None, code: int) -> None:
    (tmp_path / "summary.json").write_text('{"best_step": 7}')  # that of an earlier part, if this one failed
    each = tracker()
    each.on_start(start(tmp_path))
    each.on_end(3, error)
    (result,) = recorded(tmp_path)
    assert result.exit_code == code
    assert ("best_step" in result.summary) == (code != 1)


def test_variables_apply_to_what_the_spec_does_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROJECT", "NAME", "RUN_GROUP", "TAGS", "NOTES"):
        monkeypatch.setenv(f"WANDB_{name}", f"of-{name.lower()}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name, fields in {"one": {}, "two": {"project": "own", "tags": ["mine"], "run_name": "me", "group": "us"}}.items():
        each = tracker(**fields)
        each.on_start(start(tmp_path / name))
        each.on_end(0, None)
    (one,), (two,) = recorded(tmp_path / "one"), recorded(tmp_path / "two")
    assert (one.run.project, one.run.display_name, one.run.run_group) == ("of-project", "of-name", "of-run_group")
    assert (list(one.run.tags), one.run.notes) == (["of-tags"], "of-notes")
    assert (two.run.project, two.run.display_name, two.run.run_group) == ("own", "me", "us")
    assert (list(two.run.tags), two.run.notes) == (["mine"], "of-notes")


def test_trainings_at_once_are_runs_of_the_group_of_their_experiment(tmp_path: Path) -> None:
    trials = [tmp_path / "sizes" / "trials" / name for name in ("small-0", "large-0")]
    both = [tracker() for _ in trials]
    (tmp_path / "sizes").mkdir()
    (tmp_path / "sizes" / "experiment.json").write_text("{}")
    for each, directory in zip(both, trials, strict=True):
        each.on_start(start(directory))
    for loss, each in enumerate(both):
        each.on_metrics(1, {"loss": float(loss)})
        each.on_end(1, None)
    (small,), (large,) = map(recorded, trials)
    assert small.run.run_id != large.run.run_id
    assert (small.run.run_group, large.run.run_group, small.run.project) == ("sizes", "sizes", "gptkit")
    assert (small.run.display_name, large.run.display_name) == ("small-0", "large-0")
    assert (small.rows, large.rows) == ([{"step": 1, "loss": 0.0}], [{"step": 1, "loss": 1.0}])


@pytest.mark.parametrize("mode", ["online", None])
def test_without_a_login_the_run_is_offline_and_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mode: str | None
) -> None:
    def ask(*args: object) -> str:
        raise AssertionError("a prompt")

    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setattr("click.prompt", ask)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    each = tracker(mode=mode)
    with caplog.at_level(logging.WARNING, "gptkit"):
        each.on_start(start(tmp_path))
        each.on_end(0, None)
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "gptkit"]
    assert "wandb is not logged in (`wandb login`); the run is recorded offline, and `wandb sync` uploads it" in warning
    assert len(recorded(tmp_path)) == 1


def test_without_a_connection_the_run_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # a port on which nothing listens
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    each = tracker(mode="online")
    with caplog.at_level(logging.WARNING, "gptkit"):
        each.on_start(start(tmp_path))
    each.on_metrics(1, {"loss": 2.0})
    each.on_end(1, None)
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "gptkit"]
    assert "connection refused; the run is recorded offline" in warning
    (result,) = recorded(tmp_path)
    assert result.rows == [{"step": 1, "loss": 2.0}]


def test_disabled_tracker_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fields in ({"mode": "disabled"}, {}):
        monkeypatch.setenv("WANDB_MODE", "offline" if fields else "disabled")
        wandb.teardown()
        each = tracker(**fields)
        each.on_start(start(tmp_path))
        each.on_metrics(1, {"loss": 1.0})
        each.on_sample(1, "text")
        each.on_end(1, None)
    assert list(tmp_path.iterdir()) == []


def test_training_records_in_its_directory_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "text.txt").write_text("once upon a time there was a text. " * 60, encoding="utf-8")
    (tmp_path / "gpt.yaml").write_text(
        """
        tokenizer: byte
        model: {d_model: 8, n_layers: 1, context_length: 16, attention: {name: multi-head, n_heads: 1}}
        data: {name: text, path: data}
        training: {steps: 4, batch_size: 2, log_every: 1, trackers: [{name: wandb, mode: offline, samples: false}]}
        """,
        encoding="utf-8",
    )
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    gptkit.train(str(tmp_path / "gpt.yaml"), str(tmp_path / "run"))
    gptkit.resume(str(tmp_path / "run"), **{"training.steps": 6})
    gptkit.train(str(tmp_path / "gpt.yaml"), str(tmp_path / "run"), overwrite=True)
    first, second, new = recorded(tmp_path / "run")
    assert first.run.run_id == second.run.run_id != new.run.run_id
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert new.rows == lines
    assert [row["step"] for row in second.rows] == [5, 6]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert new.summary["best_validation_loss"] == summary["best_validation_loss"]
    assert first.config["model"]["context_length"] == 16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "gpt.yaml", "here", "run"]
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@parametrize_checks(WandbSpec)
def test_conformance(spec: Any, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    end = WandbTracker.on_end

    def end_and_wait(tracker: WandbTracker, step: int, error: BaseException | None) -> None:
        end(tracker, step, error)
        wandb.teardown()

    # The checks compare files, and wandb's process writes the last of them after `finish` has returned.
    monkeypatch.setattr(WandbTracker, "on_end", end_and_wait)
    check(spec)
