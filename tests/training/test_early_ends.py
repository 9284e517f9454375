"""Callbacks that end a training before its last step, and answers of callbacks that are not of the contract's types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.checkpoint.store import CheckpointStore
from gptkit.core.errors import TrainingError
from gptkit.kinds.callback import Callback
from gptkit.runs.directory import RunDirectory
from tests.support.bigram import MakeTrainer

SPEC: dict[str, Any] = {
    "gptkit": 1,
    "name": "ending",
    "tokenizer": "byte",
    "model": {"context_length": 16, "d_model": 8, "n_layers": 1},
    "data": "builtin",
    "training": {
        "steps": 6,
        "batch_size": 2,
        "evaluate_every": 2,
        "checkpoint_every": 4,
        "log_every": 1,
        "sample_tokens": 0,
    },
}


class EndsAt(Callback):
    """End the training after a number of steps."""

    def __init__(self, step: int) -> None:
        self.last = step
        self.ended_with: list[tuple[int, BaseException | None]] = []

    def ends(self, step: int) -> bool:
        return step >= self.last

    def on_end(self, step: int, error: BaseException | None) -> None:
        self.ended_with.append((step, error))


def test_ended_training_is_finished_and_has_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callback = EndsAt(3)
    run = gptkit.train(SPEC, tmp_path / "run", callbacks=[callback])
    assert (run.step, run.finished) == (3, True)
    assert callback.ended_with == [(3, None)]
    assert CheckpointStore(RunDirectory(tmp_path / "run").checkpoints).steps()[-1] == 3
    assert "done after step 3 of 6, ended by a callback" in capsys.readouterr().err


def test_ended_training_continues_without_the_callback_as_if_it_had_not_ended(tmp_path: Path) -> None:
    gptkit.train(SPEC, tmp_path / "ended", progress=False, callbacks=[EndsAt(3)])
    again = gptkit.resume(tmp_path / "ended", progress=False, callbacks=[EndsAt(3)])
    assert (again.step, again.finished) == (3, True)
    resumed = gptkit.resume(tmp_path / "ended", progress=False)
    whole = gptkit.train(SPEC, tmp_path / "whole", progress=False)
    assert resumed.step == whole.step == 6
    other = whole.model.state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in resumed.model.state_dict().items())


class Answers(Callback):
    """Return an answer of another type."""

    def __init__(self, method: Literal["ends", "accepts"]) -> None:
        self.method = method

    def ends(self, step: int) -> bool:
        return None if self.method == "ends" else False  # type: ignore[return-value]

    def accepts(self, step: int, loss: float, norm: float) -> bool:
        return None if self.method == "accepts" else True  # type: ignore[return-value]


@pytest.mark.parametrize("method", ["ends", "accepts"])
def test_answer_that_is_not_a_bool_is_an_error(make_trainer: MakeTrainer, method: Literal["ends", "accepts"]) -> None:
    with pytest.raises(TrainingError, match=f"callback Answers: {method} returned None, not a bool"):
        make_trainer(callbacks=[Answers(method)]).run()


class Unknown(Callback):
    """Provide weights that the model does not have."""

    def evaluation_weights(self) -> Mapping[str, Tensor]:
        return {"nothing": torch.zeros(3)}


def test_provided_weights_that_are_not_the_models_are_named(make_trainer: MakeTrainer) -> None:
    with pytest.raises(
        TrainingError, match="callback Unknown: evaluation_weights returned 'nothing', which is not a parameter"
    ):
        make_trainer(callbacks=[Unknown()]).run()


class Pollutes(Callback):
    """Change the metrics that it receives."""

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        metrics["seen"] = 1.0  # type: ignore[index]


def test_metrics_cannot_be_changed_by_a_callback(make_trainer: MakeTrainer) -> None:
    with pytest.raises(TypeError, match="mappingproxy"):
        make_trainer(callbacks=[Pollutes()]).run()
