"""`training.stages`: batch, length, attention window, learning rate and loss weights by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gptkit
from gptkit.core.errors import CheckpointError, SpecError, TrainingError
from gptkit.kinds.callback import Callback, StepPlan, Training
from gptkit.model.gpt import GPT
from gptkit.nn.attention.base import Attention
from gptkit.training.config import TrainingSpec
from gptkit.training.stages import Stages
from tests.support.bigram import MakeTrainer

STAGES: list[dict[str, Any]] = [
    {"steps": 3, "batch_size": 2, "window": 5, "attention_window": 2, "losses": {"z_loss": 0.5, "multi_token": 0.0}},
    {"steps": 2, "window": 10, "rate": 0.5, "losses": {"label_smoothing": 0.2}},
    {"batch_size": 6, "attention_window": 99, "schedule": {"name": "linear", "final": 0.0}},
]
MODEL: dict[str, Any] = {
    "d_model": 16,
    "n_layers": 2,
    "context_length": 16,
    "attention": {"n_heads": 2, "window": 6},
    "layers": [{}, {"attention": {"window": None}}],
    "head": {"name": "multi-token", "weight": 0.3, "head": {"name": "linear", "z_loss": 0.1}},
}


def spec(**training: Any) -> dict[str, Any]:
    fields = {
        "steps": 8,
        "batch_size": 4,
        "log_every": 1,
        "evaluate_every": None,
        "evaluate_batches": 1,
        "sample_tokens": 0,
        "checkpoint_every": 4,
        "device": "cpu",
        "schedule": "constant",
        "stages": STAGES,
        **training,
    }
    return {"tokenizer": "byte", "model": MODEL, "training": fields}


class ByHand(Callback):
    """The plan of `STAGES`, written for each step."""

    # of steps 0 to 7
    rates = (1.0, 1.0, 1.0, 0.5, 0.5, 1.0, 1 - 1 / 3, 1 - 2 / 3)
    batches = (2, 2, 2, 4, 4, 6, 6, 6)
    lengths = (5, 5, 5, 10, 10, 16, 16, 16)
    windows = (2, 2, 2, None, None, None, None, None)
    z_losses = (0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1)
    smoothings = (0.0, 0.0, 0.0, 0.2, 0.2, 0.0, 0.0, 0.0)
    multi_token = (0.0, 0.0, 0.0, 0.3, 0.3, 0.3, 0.3, 0.3)

    def setup(self, training: Training) -> None:
        self.model: Any = training.model

    def plan(self, step: int, plan: StepPlan) -> StepPlan:
        return StepPlan(self.rates[step], self.batches[step], self.lengths[step])

    def on_step_start(self, step: int) -> None:
        self.model.blocks[0].attention.training_window = self.windows[step]
        head = self.model.head
        head.loss_weights["multi_token"] = self.multi_token[step]
        head.head.loss_weights.update(z_loss=self.z_losses[step], label_smoothing=self.smoothings[step])


def equal(one: nn.Module, other: nn.Module) -> None:
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_stages_equal_a_plan_by_hand_and_a_resumed_run(tmp_path: Path) -> None:
    run = gptkit.train(spec(), tmp_path / "stages", progress=False)
    by_hand = gptkit.train(spec(stages=[]), tmp_path / "hand", callbacks=[ByHand()], progress=False)
    for name in ("loss", "grad_norm", "learning_rate", "tokens"):
        assert len(run.metrics.points(name)) == 8
        assert run.metrics.points(name) == by_hand.metrics.points(name), name
    equal(run.model, by_hand.model)
    plain = gptkit.train(spec(stages=[]), tmp_path / "plain", progress=False)
    assert run.metrics.last("loss") != plain.metrics.last("loss")
    # Interrupted within the first, the second and the last stage.
    for interrupted in (2, 4, 6):
        directory = tmp_path / f"parts{interrupted}"
        steps = {"stages": [*STAGES[:2], {**STAGES[2], "steps": 3}]}
        gptkit.train(spec(**steps), directory, [f"training.steps={interrupted}"], progress=False)
        parts = gptkit.resume(directory, ["training.steps=8"], progress=False)
        equal(run.model, parts.model)


def test_each_stage_equals_a_training_of_its_own(make_trainer: MakeTrainer) -> None:
    """Plain SGD has no state, so a stage continues the weights of the previous one."""
    fields: dict[str, Any] = {"optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.0}, "schedule": "constant"}
    stages = [{"steps": 4, "batch_size": 2, "rate": 0.5}, {"batch_size": 6}]
    whole = make_trainer("whole", steps=7, stages=stages, dropout=0.0, **fields)
    whole.run()
    halved = {**fields, "optimizer": {**fields["optimizer"], "learning_rate": 0.05}}
    first = make_trainer("first", steps=4, batch_size=2, dropout=0.0, **halved)
    first.run()
    second = make_trainer("second", steps=7, batch_size=6, model=first.model, **fields)
    second.state.step, second.state.windows = 4, 8
    second.run()
    equal(whole.model, second.model)


def test_model_is_unchanged_after_the_training(tmp_path: Path) -> None:
    run = gptkit.train(spec(steps=2), tmp_path / "run", progress=False)
    model: Any = run.model
    assert model.head.loss_weights == {"multi_token": 0.3}
    assert model.head.head.loss_weights == {"z_loss": 0.1, "label_smoothing": 0.0}
    assert [each.training_window for each in model.modules() if isinstance(each, Attention)] == [None, None, None]


def test_metric_has_the_number_of_the_stage(tmp_path: Path) -> None:
    run = gptkit.train(spec(), tmp_path / "run", progress=False)
    assert [value for _, value in run.metrics.points("stage/number")] == [1, 1, 1, 2, 2, 3, 3, 3]


def test_routers_have_weights_that_stages_set() -> None:
    feedforward = {"name": "experts", "n_experts": 4, "router": {"name": "softmax-top-k", "balance_loss": 0.01}}
    model = GPT({"d_model": 16, "n_layers": 1, "context_length": 8, "feedforward": feedforward}, 11).train()
    ids = torch.arange(8).reshape(1, 8)
    before = model(ids, ids).losses["load_balance"]
    training = TrainingSpec.model_validate({"stages": [{"losses": {"load_balance": 0.03}}]})
    callback = Stages(training)
    callback.setup(Training(model, torch.optim.SGD(model.parameters()), 1000, 0))
    callback.on_step_start(0)
    torch.testing.assert_close(model(ids, ids).losses["load_balance"], 3 * before)
    callback.on_end(1000, None)
    torch.testing.assert_close(model(ids, ids).losses["load_balance"], before)


@pytest.mark.parametrize(
    ("stages", "path", "message"),
    [
        ([{"batch_size": 2}, {}], "stages.0.steps", "only the last stage"),
        ([{"steps": 3}, {"steps": 4}], "stages.1.steps", "end at step 7, but the training has 8 steps"),
        ([{"window": 17}], "stages.0.window", "exceed a data window of 16"),
        ([{"losses": {"z_los": 0.1}}], "stages.0.losses.z_los", "did you mean 'z_loss'"),
        ([{"losses": {"label_smoothing": 1.0}}], "stages.0.losses.label_smoothing", "must be below 1"),
        ([{"losses": {"z_loss": -1.0}}], "stages.0.losses.z_loss", "at least 0"),
        ([{"rate": 0.0}], "stages.0.rate", "greater than 0"),
        ([{"batch_size": 3}], "stages.0.batch_size", "no 2 equal parts"),
        ([{"schedule": {"name": "linear", "finall": 0.1}}], "stages.0.schedule", "finall"),
    ],
)
def test_wrong_stages_are_rejected_with_their_path(stages: Any, path: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        gptkit.open_spec(spec(stages=stages, grad_accumulation=2))
    assert f"training.{path}" in str(caught.value)
    assert message in str(caught.value)


def test_attention_windows_have_one_owner() -> None:
    with pytest.raises(SpecError, match=r"training\.callbacks\.0: .*set by training.stages"):
        gptkit.open_spec(spec(stages=[{"attention_window": 2}], callbacks=["window-warmup"]))


def test_attention_window_of_a_model_without_one_is_rejected() -> None:
    model = GPT({**MODEL, "attention": {"n_heads": 2}, "layers": None}, 11)
    with pytest.raises(TrainingError, match="no layer of the model has a sliding window"):
        Stages(TrainingSpec.model_validate({"stages": [{"attention_window": 2}]})).setup(
            Training(model, torch.optim.SGD(model.parameters()), 1000, 0)
        )


def test_resumed_run_must_keep_its_stages(tmp_path: Path) -> None:
    gptkit.train(spec(steps=2), tmp_path / "run", progress=False)
    changed = [{**STAGES[0], "batch_size": 3}, *STAGES[1:]]
    with pytest.raises(CheckpointError, match=r"training\.stages\.0\.batch_size: 2 in the run, 3 requested"):
        gptkit.train(spec(stages=changed), tmp_path / "run", resume=True, progress=False)


def test_memory_is_planned_for_the_largest_step() -> None:
    training = gptkit.open_spec(spec()).spec.training
    assert training.largest_step(16) == (6, 16)
    assert gptkit.open_spec(spec(stages=[])).spec.training.largest_step(16) == (4, 16)
