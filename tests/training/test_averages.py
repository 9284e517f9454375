"""Optimizers with weights of their own to evaluate with: validation, samples, checkpoints, resumed and finished runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.checkpoint.store import load_weights
from gptkit.components.optimizer.schedule_free import ScheduleFreeSpec
from gptkit.components.optimizer.sgd import SGDSpec
from gptkit.core.errors import SpecError, TrainingError
from gptkit.kinds.callback import Callback, Training
from gptkit.training.groups import build_optimizer
from gptkit.training.internal import OptimizerAverages
from tests.support.bigram import MakeTrainer, batch, make_model

OPTIMIZER: dict[str, Any] = {"name": "schedule-free", "learning_rate": 0.05, "betas": (0.7, 0.95)}
FIELDS: dict[str, Any] = {"optimizer": OPTIMIZER, "schedule": {"name": "constant", "warmup_steps": 3}}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Watch(Callback):
    """Callback that computes the averages from the formula, and records validation losses."""

    def __init__(self, crash: int | None = None) -> None:
        self.crash = crash
        self.losses: dict[int, float] = {}
        self.averages: dict[int, dict[str, Tensor]] = {}

    def setup(self, training: Training) -> None:
        self.model, self.optimizer, self.total = training.model, training.optimizer, 0.0
        self.averages[0] = {name: weight.detach().double() for name, weight in self.model.named_parameters()}

    def on_step(self, step: int) -> None:
        if step == self.crash:
            raise RuntimeError("power cut")
        rate = self.optimizer.param_groups[0]["lr"]
        self.total += rate**2
        share = rate**2 / self.total
        self.averages[step] = {
            name: (1 - share) * self.averages[step - 1][name] + share * self.optimizer.state[weight]["base"].double()
            for name, weight in self.model.named_parameters()
        }

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        if "validation_loss" in metrics:
            self.losses[step] = metrics["validation_loss"]


def test_averages_are_evaluated_sampled_saved_and_left_in_the_model(make_trainer: MakeTrainer) -> None:
    model, sampled, watch = make_model(), {}, Watch()

    def write(step: int) -> str:
        sampled[step] = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
        return ""

    trainer = make_trainer(model=model, callbacks=[watch], write=write, sample_every=4, **FIELDS)
    trainer.run()
    for step in (8, 10):
        path = trainer._checkpoints.path(step)
        saved, trained = make_model(), make_model()
        load_weights(saved, path)
        load_weights(trained, path, training=True)
        assert same(dict(saved.named_parameters()), sampled[step])
        assert not same(dict(saved.named_parameters()), dict(trained.named_parameters()))
        for name, weight in saved.named_parameters():
            torch.testing.assert_close(weight.double(), watch.averages[step][name], rtol=0, atol=1e-5)
        saved.eval()
        with torch.no_grad():
            batches = (batch(10_000 + index, 8, 0) for index in range(2))
            losses = [float(saved(inputs, targets).loss) for inputs, targets, _ in batches]
        assert watch.losses[step] == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert same(dict(model.named_parameters()), sampled[10])


def test_resumed_training_equals_an_uninterrupted_one(make_trainer: MakeTrainer) -> None:
    whole = make_trainer("whole", **FIELDS)
    whole.run()
    broken = make_trainer("broken", callbacks=[Watch(crash=7)], **FIELDS)
    with pytest.raises(RuntimeError, match="power cut"):
        broken.run()
    resumed, latest = make_trainer("broken", **FIELDS), broken._checkpoints.latest()
    assert latest is not None
    resumed.resume(latest)
    resumed.run()
    assert same(dict(whole.model.named_parameters()), dict(resumed.model.named_parameters()))
    files = [sorted(trainer._checkpoints.path(10).glob("*.safetensors")) for trainer in (whole, resumed)]
    assert len(files[0]) == 3  # the averages, the trained weights, the optimizer's state
    for one, other in zip(*files, strict=True):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes()


def spec(**training: Any) -> dict[str, Any]:
    model = {"d_model": 16, "n_layers": 1, "context_length": 8, "attention": {"n_heads": 2}}
    fields = {"steps": 4, "batch_size": 2, "evaluate_batches": 1, "sample_tokens": 2, "checkpoint_every": 2, "device": "cpu"}
    return {"tokenizer": "byte", "model": model, "training": {**fields, **FIELDS, **training}}


def test_run_is_loaded_with_the_averages_and_resumed_with_the_trained_weights(tmp_path: Path) -> None:
    once = gptkit.train(spec(steps=6), tmp_path / "once", progress=False)
    twice = gptkit.train(spec(), tmp_path / "twice", progress=False)
    loaded = gptkit.load(tmp_path / "twice", device="cpu")
    assert same(dict(twice.model.state_dict()), dict(loaded.model.state_dict()))
    resumed = gptkit.resume(tmp_path / "twice", ["training.steps=6"], progress=False)
    assert same(dict(once.model.state_dict()), dict(resumed.model.state_dict()))


def test_rate_and_batch_size_of_stages_are_followed(make_trainer: MakeTrainer) -> None:
    watch = Watch()
    stages = [{"steps": 4, "batch_size": 4}, {"rate": 0.5, "schedule": "linear"}]
    trainer = make_trainer(model=make_model(), callbacks=[watch], stages=stages, **FIELDS)
    trainer.run()
    for name, weight in trainer.model.named_parameters():
        torch.testing.assert_close(weight.detach().double(), watch.averages[10][name], rtol=0, atol=1e-5)


def test_ema_beside_an_optimizer_that_averages_is_rejected() -> None:
    with pytest.raises(SpecError, match=r"training\.callbacks\.0: the optimizer schedule-free provides the weights"):
        gptkit.open_spec(spec(callbacks=["ema"]))


def test_another_callback_with_weights_is_rejected(make_trainer: MakeTrainer) -> None:
    class Frozen(Callback):
        def setup(self, training: Training) -> None:
            self.weights = {name: weight.detach().clone() for name, weight in training.model.named_parameters()}

        def evaluation_weights(self) -> Mapping[str, Tensor]:
            return self.weights

    with pytest.raises(
        TrainingError, match="several callbacks provide the weights to evaluate with: OptimizerAverages, Froz"
    ):
        make_trainer(callbacks=[Frozen()], **FIELDS).run()


def test_optimizer_without_the_declared_method_is_rejected() -> None:
    class Declares(SGDSpec):
        averages: ClassVar[bool] = True

    with pytest.raises(TrainingError, match="declares `averages`, but what it builds has no method `evaluation_weights`"):
        build_optimizer(Declares(), make_model())


def test_weights_of_other_keys_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    optimizer = build_optimizer(ScheduleFreeSpec(), model)
    averages = OptimizerAverages()
    averages.setup(Training(model, optimizer, steps=1, seed=0))
    assert averages.evaluation_weights().keys() == dict(model.named_parameters()).keys()
    monkeypatch.setattr(optimizer, "evaluation_weights", lambda: {"mix.weight": model.mix.weight})
    with pytest.raises(TrainingError, match="evaluation_weights of ScheduleFreeAdamW returned weights by other keys"):
        averages.evaluation_weights()
