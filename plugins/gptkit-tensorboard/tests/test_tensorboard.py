"""Event files of the tracker, read with TensorBoard's reader."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from gptkit_tensorboard.tracker import TensorBoardSpec
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gptkit
from gptkit.kinds.tracker import Tracker, TrackerSpec, TrainingStart
from gptkit.testing import parametrize_checks


def tracker(**fields: Any) -> Tracker:
    spec = gptkit.default_registry().component("tracker", "tensorboard").model_validate({"name": "tensorboard", **fields})
    assert isinstance(spec, TrackerSpec)
    return spec.build()


def start(directory: Path, step: int = 0) -> TrainingStart:
    return TrainingStart(directory, step, 10, {"model": {"d_model": 8}, "name": "naïve"})


def read(directory: Path) -> EventAccumulator:
    events = EventAccumulator(str(directory))
    events.Reload()
    return events


def numbers(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 6)) for event in events.Scalars(tag)]


def text(events: EventAccumulator, tag: str) -> list[tuple[int, str]]:
    return [(e.step, e.tensor_proto.string_val[0].decode()) for e in events.Tensors(f"{tag}/text_summary")]


def test_metrics_samples_and_spec_are_read_back(tmp_path: Path) -> None:
    written = tracker()
    written.on_start(start(tmp_path))
    written.on_metrics(1, {"loss": 4.5, "learning_rate": 0.25})
    written.on_metrics(2, {"loss": 4.0, "validation_loss": 4.25})
    written.on_sample(2, "a ``` b\n# not a heading")
    written.on_end(2, None)
    events = read(tmp_path / "tensorboard")
    assert set(events.Tags()["scalars"]) == {"loss/training", "loss/validation", "training/learning_rate"}
    assert numbers(events, "loss/training") == [(1, 4.5), (2, 4.0)]
    assert numbers(events, "loss/validation") == [(2, 4.25)]
    assert text(events, "sample") == [(2, "````\na ``` b\n# not a heading\n````")]
    ((step, spec),) = text(events, "spec")
    assert step == 0
    assert json.loads(spec.removeprefix("```json\n").removesuffix("\n```")) == {"model": {"d_model": 8}, "name": "naïve"}


def test_resumed_training_hides_steps_after_its_checkpoint(tmp_path: Path) -> None:
    first = tracker()
    first.on_start(start(tmp_path))
    for step in (1, 2, 3, 4):
        first.on_metrics(step, {"loss": float(step)})
    first.on_end(4, KeyboardInterrupt())
    second = tracker()
    second.on_start(start(tmp_path, step=2))
    for step in (3, 4, 5):
        second.on_metrics(step, {"loss": 10.0 * step})
    second.on_end(5, None)
    assert numbers(read(tmp_path / "tensorboard"), "loss/training") == [(1, 1), (2, 2), (3, 30), (4, 40), (5, 50)]


def test_directory_can_be_set_and_samples_disabled(tmp_path: Path) -> None:
    chosen = tracker(directory="logs/one", samples=False)
    chosen.on_start(start(tmp_path))
    chosen.on_sample(1, "text")
    chosen.on_metrics(1, {"loss": math.inf})
    chosen.on_end(1, None)
    events = read(tmp_path / "logs" / "one")
    assert events.Tags()["tensors"] == ["spec/text_summary"]
    assert events.Scalars("loss/training")[0].value == math.inf


def test_nothing_is_written_before_the_start_or_after_the_end(tmp_path: Path) -> None:
    quiet = tracker()
    quiet.on_metrics(1, {"loss": 1.0})
    quiet.on_end(1, None)
    assert list(tmp_path.iterdir()) == []


def test_training_writes_event_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "text.txt").write_text("once upon a time there was a text. " * 60, encoding="utf-8")
    (tmp_path / "gpt.yaml").write_text(
        """
        tokenizer: byte
        model: {d_model: 8, n_layers: 1, context_length: 16, attention: {name: multi-head, n_heads: 1}}
        data: {name: text, path: data}
        training: {steps: 4, batch_size: 2, log_every: 1, trackers: [tensorboard]}
        """,
        encoding="utf-8",
    )
    gptkit.train(str(tmp_path / "gpt.yaml"), str(tmp_path / "run"))
    events = read(tmp_path / "run" / "tensorboard")
    assert [step for step, _ in numbers(events, "loss/training")][-1] == 4
    assert "loss/validation" in events.Tags()["scalars"]
    assert '"context_length": 16' in text(events, "spec")[0][1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@parametrize_checks(TensorBoardSpec)
def test_conformance(spec: Any, check: Any) -> None:
    check(spec)
