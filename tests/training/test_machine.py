"""Conditions of a training that a resumed run must share for bit-identical results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.training.machine import conditions, deviation

SPEC: dict[str, Any] = {
    "tokenizer": "byte",
    "model": {"context_length": 8, "d_model": 8, "n_layers": 1, "attention": {"name": "multi-head", "n_heads": 2}},
    "data": {"name": "text", "path": "corpus.txt"},
    "training": {"steps": 1, "batch_size": 2, "evaluate_batches": 1, "sample_tokens": 0, "device": "cpu"},
}
SAME: dict[str, Any] = {"device": "cpu", "processes": 1, "threads": 2, "torch": "2.6.0"}


@pytest.fixture
def one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("the cat sat on a mat. " * 200)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def resumed(caplog: pytest.LogCaptureFixture, steps: int) -> str:
    caplog.clear()
    gptkit.resume("run", [f"training.steps={steps}"], progress=False)
    return caplog.text


def test_resuming_with_other_threads_prints_a_warning(one_thread: None, caplog: pytest.LogCaptureFixture) -> None:
    torch.set_num_threads(2)
    gptkit.train(SPEC, "run", progress=False)
    assert "bit-identical" not in resumed(caplog, 2)
    torch.set_num_threads(1)
    assert (
        "run was trained with 2 threads, and continues with 1 thread: results are not bit-identical; set "
        "OMP_NUM_THREADS=2 to continue exactly"
    ) in resumed(caplog, 3)
    # Its last steps were computed with one thread.
    assert "bit-identical" not in resumed(caplog, 4)


@pytest.mark.parametrize("recorded", [None, {}, [], {"device": "cpu"}, {"device": "cpu", "threads": "2", "torch": "x"}])
def test_checkpoint_without_the_conditions_is_resumed_silently(
    one_thread: None, caplog: pytest.LogCaptureFixture, recorded: Any
) -> None:
    gptkit.train(SPEC, "run", progress=False)
    file = Path("run/checkpoints/step-00000001/state.json")
    state = json.loads(file.read_text())
    assert state["training"].pop("conditions") == conditions(torch.device("cpu"))
    if recorded is not None:
        state["training"]["conditions"] = recorded
    file.write_text(json.dumps(state))
    assert "bit-identical" not in resumed(caplog, 2)


def test_resuming_with_other_processes_prints_a_warning(
    one_thread: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch.distributed, "is_initialized", lambda: True)
        patch.setattr(torch.distributed, "get_world_size", lambda: 4)
        four = conditions(torch.device("cpu"))
    gptkit.train(SPEC, "run", progress=False)
    file = Path("run/checkpoints/step-00000001/state.json")
    state = json.loads(file.read_text())
    assert state["training"]["conditions"] == {**four, "processes": 1}
    state["training"]["conditions"] = four
    file.write_text(json.dumps(state))
    assert (
        "run was trained in 4 processes, and continues in 1 process: results are not bit-identical; start 4 processes with "
        "torchrun to continue exactly"
    ) in resumed(caplog, 2)
    # Checkpoints of versions that did not record the number.
    file = Path("run/checkpoints/step-00000002/state.json")
    state = json.loads(file.read_text())
    del state["training"]["conditions"]["processes"]
    file.write_text(json.dumps(state))
    assert "bit-identical" not in resumed(caplog, 3)


def test_every_condition_has_a_remedy() -> None:
    assert deviation(SAME, SAME) is None
    message = deviation(SAME, {**SAME, "device": "cuda", "torch": "2.7.0"})
    assert message == (
        "was trained on cpu and with torch 2.6.0, and continues on cuda and with torch 2.7.0: results are not "
        "bit-identical; set training.device=cpu and install torch==2.6.0 to continue exactly"
    )
    assert "1 thread," in str(deviation({**SAME, "threads": 1}, SAME))
    assert "; start it without torchrun and set OMP_NUM_THREADS=2 to" in str(
        deviation(SAME, {**SAME, "processes": 2, "threads": 1})
    )


def test_threads_are_compared_on_the_cpu_only() -> None:
    assert deviation({**SAME, "device": "cuda"}, {**SAME, "device": "cuda", "threads": 4}) is None
