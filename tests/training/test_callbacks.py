"""Callbacks: their effects, their state in checkpoints, and those of plugins."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import gptkit
from gptkit.checkpoint.store import load_weights, read_callbacks, read_state
from gptkit.components.callback.skip_spikes import SkipSpikesSpec
from gptkit.core.component import Component
from gptkit.core.errors import CheckpointError, SpecError, TrainingError
from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry
from gptkit.kinds.callback import Callback, CallbackSpec, StepPlan, Training
from gptkit.training.config import TrainingSpec
from gptkit.training.loop import Trainer
from gptkit.training.resume import CHANGEABLE, Fixed
from tests.support.bigram import MakeTrainer, batch, make_model
from tests.support.fake_plugins import FakeDistribution, FakeEntryPoint

EMA: dict[str, Any] = {"name": "ema", "decay": 0.8, "warmup": False}


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Keep(Callback):
    """Callback that records the parameters after every step."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Tensor]] = []

    def setup(self, training: Training) -> None:
        self.model = training.model
        self.kept.append(self.parameters())

    def parameters(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.model.named_parameters()}

    def on_step(self, step: int) -> None:
        self.kept.append(self.parameters())


# -- ema -----------------------------------------------------------------------------------------------------------


def test_ema_is_the_recursive_average_of_the_weights(make_trainer: MakeTrainer) -> None:
    keep = Keep()
    trainer = make_trainer(spec_callbacks=[EMA], callbacks=[keep])
    trainer.run()
    expected = {name: tensor.double() for name, tensor in keep.kept[0].items()}
    for parameters in keep.kept[1:]:
        expected = {name: 0.8 * expected[name] + 0.2 * parameters[name].double() for name in expected}
    for name, tensor in trainer.model.named_parameters():
        assert torch.allclose(tensor.double(), expected[name], atol=1e-6)
        assert not torch.equal(tensor, keep.kept[-1][name])


def test_ema_does_not_change_the_weights_in_training(make_trainer: MakeTrainer) -> None:
    plain, averaged = Keep(), Keep()
    make_trainer("a", callbacks=[plain], sample_every=2, write=lambda step: "").run()
    make_trainer("b", spec_callbacks=[EMA], callbacks=[averaged], sample_every=2, write=lambda step: "").run()
    assert all(same(one, other) for one, other in zip(plain.kept, averaged.kept, strict=True))


def test_averaged_weights_are_evaluated_sampled_and_saved(make_trainer: MakeTrainer) -> None:
    class Look(Callback):
        def __init__(self) -> None:
            self.losses: dict[int, float] = {}

        def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
            if "validation_loss" in metrics:
                self.losses[step] = metrics["validation_loss"]

    model, seen, look = make_model(), {}, Look()

    def write(step: int) -> str:
        seen[step] = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
        return ""

    trainer = make_trainer(model=model, spec_callbacks=[EMA], callbacks=[look], write=write, sample_every=4)
    trainer.run()
    for step, checkpoint in ((8, "step-00000008"), (10, "step-00000010")):
        path = trainer._checkpoints.directory / checkpoint
        saved, trained = make_model(), make_model()
        load_weights(saved, path)
        load_weights(trained, path, training=True)
        assert same(dict(saved.named_parameters()), seen[step])
        assert not same(dict(saved.named_parameters()), dict(trained.named_parameters()))
        saved.eval()
        with torch.no_grad():
            batches = (batch(10_000 + index, 8, 0) for index in range(2))
            losses = [float(saved(inputs, targets).loss) for inputs, targets, _ in batches]
        assert look.losses[step] == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert same(dict(model.named_parameters()), seen[10])


@pytest.mark.parametrize(
    "callbacks",
    [
        [EMA],
        [{"name": "ema", "every": 3}],
        [
            {"name": "batch-warmup", "initial": 2, "steps": 8},
            {"name": "length-warmup", "initial": 2, "multiple": 1, "steps": 9},
        ],
        [{"name": "skip-spikes", "warmup_steps": 2, "window": 4}, {"name": "norms", "every": 3}],
    ],
    ids=["ema", "ema-warmup", "warmups", "records"],
)
def test_resumed_training_equals_an_uninterrupted_one(make_trainer: MakeTrainer, callbacks: list[Any]) -> None:
    class Crash(Callback):
        def on_step(self, step: int) -> None:
            if step == 7:
                raise RuntimeError("power cut")

    whole = make_trainer("whole", spec_callbacks=callbacks)
    whole.run()
    broken = make_trainer("broken", spec_callbacks=callbacks, callbacks=[Crash()])
    with pytest.raises(RuntimeError, match="power cut"):
        broken.run()
    resumed = make_trainer("broken", spec_callbacks=callbacks)
    latest = broken._checkpoints.latest()
    assert latest is not None
    assert latest.name == "step-00000004"
    resumed.resume(latest)
    resumed.run()
    assert same(weights(whole), weights(resumed))
    for name in ("model.safetensors", "optimizer.safetensors"):
        files = [trainer._checkpoints.path(10) / name for trainer in (whole, resumed)]
        assert files[0].read_bytes() == files[1].read_bytes()
    states = [read_callbacks(path.parent, read_state(path.parent)) for path in files]
    assert states[0].keys() == states[1].keys()
    assert states[0].get("SkipSpikes") == states[1].get("SkipSpikes")
    assert states[0].get("Norms") == states[1].get("Norms")


def test_averages_of_imported_weights_start_from_them(make_trainer: MakeTrainer) -> None:
    first = make_trainer("first", steps=1)
    first.run()
    saved = first._checkpoints.path(1)
    second = make_trainer("second", steps=1, spec_callbacks=[{**EMA, "decay": 0.999999}])
    second._checkpoints.adopt(lambda file: file.write_bytes((saved / "model.safetensors").read_bytes()))
    latest = second._checkpoints.latest()
    assert latest is not None
    second.resume(latest)
    second.run()
    for name, tensor in second.model.named_parameters():
        assert torch.allclose(tensor, first.model.get_parameter(name), atol=1e-5)


def test_two_callbacks_with_weights_are_rejected(make_trainer: MakeTrainer) -> None:
    with pytest.raises(TrainingError, match="several callbacks provide the weights to evaluate with: EMA, EMA"):
        make_trainer(spec_callbacks=[EMA, EMA]).run()


# -- plans ---------------------------------------------------------------------------------------------------------


class Shapes:
    """Batch function that records its arguments."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []
        self.used: list[tuple[int, int]] = []

    def __call__(self, step: int, batch_size: int, seed: int, *, first: int) -> Any:
        self.asked.append((step, batch_size, first))
        return batch(step, batch_size, seed)

    def last(self) -> list[tuple[int, int, int]]:
        """Return the last call for each step: a batch that was read ahead for another plan is replaced."""
        return sorted({step: (step, size, first) for step, size, first in self.asked}.values())

    def watch(self, trainer: Trainer) -> None:
        def note(module: Any, args: Any) -> None:
            if module.training:
                self.used.append(tuple(args[0].shape))

        trainer.model.register_forward_pre_hook(note)


def test_warmups_of_batch_and_length_reach_the_model(make_trainer: MakeTrainer) -> None:
    shapes = Shapes()
    callbacks = [
        {"name": "batch-warmup", "initial": 2, "steps": 6, "multiple": 2},
        {"name": "length-warmup", "initial": 2, "steps": 4, "multiple": 1},
    ]
    trainer = make_trainer(spec_callbacks=callbacks, train=shapes, validation=None, steps=8)
    shapes.watch(trainer)
    trainer.run()
    sizes = [2, 2, 4, 4, 6, 6, 8, 8]
    assert shapes.used == list(zip(sizes, [2, 3, 4, 5, 6, 6, 6, 6], strict=True))
    assert shapes.last() == [(step, size, sum(sizes[:step])) for step, size in enumerate(sizes)]


def test_planned_batch_is_rounded_up_to_equal_parts(make_trainer: MakeTrainer) -> None:
    shapes = Shapes()
    trainer = make_trainer(
        spec_callbacks=[{"name": "batch-warmup", "initial": 1, "steps": 4}], grad_accumulation=4, train=shapes, steps=4
    )
    shapes.watch(trainer)
    trainer.run()
    assert [size for _, size, _ in shapes.last()] == [4, 4, 4, 8]
    assert len(shapes.used) == 16


def test_callback_can_change_the_rate_and_the_model(make_trainer: MakeTrainer) -> None:
    class Half(Callback):
        def setup(self, training: Training) -> None:
            self.training, self.rates = training, []

        def plan(self, step: int, plan: StepPlan) -> StepPlan:
            return plan.replace(rate=plan.rate / 2)

        def on_step_start(self, step: int) -> None:
            self.training.model.dropout.p = 0.0

        def on_gradients(self, step: int) -> None:
            self.rates.append(self.training.optimizer.param_groups[0]["lr"])
            self.training.model.get_parameter("mix.bias").grad.zero_()

    half = Half()
    trainer = make_trainer(callbacks=[half], optimizer={"name": "sgd", "learning_rate": 0.05})
    bias = trainer.model.get_parameter("mix.bias").detach().clone()
    trainer.run()
    assert half.rates == pytest.approx([0.025 * trainer.spec.schedule.factor(step, 10) for step in range(10)])
    assert trainer.model.dropout.p == 0.0
    assert torch.equal(trainer.model.get_parameter("mix.bias"), bias)


@pytest.mark.parametrize("wrong", [{"length": 7}, {"batch_size": 0}, {"rate": float("nan")}])
def test_impossible_plan_is_an_error(make_trainer: MakeTrainer, wrong: dict[str, Any]) -> None:
    class Wrong(Callback):
        def plan(self, step: int, plan: StepPlan) -> StepPlan:
            return plan.replace(**wrong)

    with pytest.raises(TrainingError, match="the callbacks planned step 0"):
        make_trainer(callbacks=[Wrong()]).run()


# -- in runs -------------------------------------------------------------------------------------------------------


class CountingSpec(CallbackSpec):
    """Callback that counts steps and scales the rate by them."""

    name: Literal["counting"] = "counting"

    def build(self) -> Callback:
        return Counting()


class Counting(Callback):
    total = 0

    def plan(self, step: int, plan: StepPlan) -> StepPlan:
        return plan.replace(rate=plan.rate / (1 + self.total))

    def on_step(self, step: int) -> None:
        self.total += 1

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total = state["total"]


def registry() -> Registry:
    module = ModuleType("counting_plugin")

    def gptkit_components() -> list[type[Component]]:
        return [CountingSpec]

    module.gptkit_components = hookimpl(gptkit_components)  # type: ignore[attr-defined]
    entry = FakeEntryPoint("counting", module.__name__, FakeDistribution("gptkit-counting", "1.0"), lambda: module)
    return Registry([*importlib.metadata.entry_points(group="gptkit"), entry])


def spec(**training: Any) -> dict[str, Any]:
    return {
        "tokenizer": "byte",
        "model": {"d_model": 16, "n_layers": 1, "context_length": 8, "attention": {"n_heads": 2}},
        "training": {
            "steps": 4,
            "batch_size": 2,
            "log_every": 1,
            "evaluate_every": 9,
            "sample_every": 9,
            "checkpoint_every": 2,
            "device": "cpu",
            **training,
        },
    }


def test_plugin_callback_is_called_and_restored(tmp_path: Path) -> None:
    installed = registry()
    given = spec(callbacks=["counting"])
    whole = gptkit.train(given, tmp_path / "whole", progress=False, registry=installed)
    assert whole.provenance["components"]["callback counting"] == "gptkit-counting==1.0"
    gptkit.train(spec(callbacks=["counting"], steps=2), tmp_path / "run", progress=False, registry=installed)
    changes = {"training.steps": 4}
    # The cosine depends on the number of steps, so the first two steps are taken with the longer one too.
    state = read_state(tmp_path / "run" / "checkpoints" / "step-00000002")
    assert read_callbacks(tmp_path / "run" / "checkpoints" / "step-00000002", state)["Counting"] == {"total": 2}
    resumed = gptkit.resume(tmp_path / "run", progress=False, registry=installed, **changes)
    state = read_state(tmp_path / "run" / "checkpoints" / "step-00000004")
    assert read_callbacks(tmp_path / "run" / "checkpoints" / "step-00000004", state)["Counting"] == {"total": 4}
    assert resumed.finished


def test_run_with_ema_is_loaded_with_the_averages(tmp_path: Path) -> None:
    run = gptkit.train(spec(callbacks=[EMA]), tmp_path / "run", progress=False)
    loaded = gptkit.load(tmp_path / "run", device="cpu")
    assert same(dict(run.model.state_dict()), dict(loaded.model.state_dict()))
    trained = gptkit.build(run.spec)
    load_weights(trained, tmp_path / "run" / "checkpoints" / "step-00000004", training=True)
    assert not same(dict(trained.state_dict()), dict(loaded.model.state_dict()))


def test_callbacks_cannot_change_when_a_run_is_resumed(tmp_path: Path) -> None:
    gptkit.train(spec(callbacks=[EMA]), tmp_path / "run", progress=False)
    with pytest.raises(CheckpointError, match=r"training\.callbacks\.0\.decay: 0\.8 in the run, 0\.9 requested; every step"):
        gptkit.resume(tmp_path / "run", ["training.callbacks.0.decay=0.9"], progress=False)


def test_invalid_field_of_a_callback_is_located() -> None:
    with pytest.raises(SpecError, match=r"training\.callbacks\.0\.decay"):
        gptkit.open_spec(spec(callbacks=[{"name": "ema", "decay": 1.5}]))


def test_every_field_declares_whether_a_resumed_run_may_change_it() -> None:
    for cls, nested in ((TrainingSpec, ()), (gptkit.ExperimentSpec, ("training",))):
        for name, field in cls.model_fields.items():
            marks = [item for item in field.metadata if item is CHANGEABLE or isinstance(item, Fixed)]
            assert len(marks) == (name not in nested), f"{cls.__name__}.{name}"


# -- norms and spikes ----------------------------------------------------------------------------------------------


class Record(Callback):
    """Callback that records all metrics by step."""

    def __init__(self) -> None:
        self.metrics: dict[int, dict[str, float]] = {}

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.metrics.setdefault(step, {}).update(metrics)


def test_norms_are_those_of_gradients_weights_and_outputs(make_trainer: MakeTrainer) -> None:
    model = make_model()
    outputs: list[Tensor] = []
    model.mix.register_forward_hook(lambda module, inputs, output: outputs.append(output.detach()))
    expected: dict[str, float] = {}

    class Compare(Callback):
        def on_step_start(self, step: int) -> None:
            outputs.clear()

        def on_gradients(self, step: int) -> None:
            parameters = list(model.mix.parameters())
            flat = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
            expected["gradient_norm/mix"] = float(flat.square().sum().sqrt())
            flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
            expected["weight_norm/mix"] = float(flat.square().sum().sqrt())
            expected["activation_rms/mix"] = float(outputs[0].square().mean().sqrt())

    record = Record()
    spec = {"name": "norms", "every": 3, "weights": True}
    settings: dict[str, Any] = {"steps": 6, "log_every": 1, "validation": None, "precision": "fp32"}
    make_trainer(model=model, **settings, spec_callbacks=[spec], callbacks=[Compare(), record]).run()
    assert all("gradient_norm/mix" not in record.metrics[step] for step in (1, 2, 4, 5))
    for name, value in expected.items():
        assert record.metrics[6][name] == pytest.approx(value, rel=1e-5), name


def test_batches_without_targets_make_no_spikes_of_others() -> None:
    skips = SkipSpikesSpec(warmup_steps=4, window=8).build()
    answers = [skips.accepts(step, *numbers) for step, numbers in enumerate([(0.0, 0.0)] * 9 + [(5.0, 1.0)] * 4)]
    assert all(answers)
    assert not skips.accepts(13, 50.0, 1.0)


def test_spike_is_skipped_and_reported(make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture) -> None:
    class Spoil(Callback):
        """Callback that makes the gradient of one step huge, and of another NaN; it keeps the weights."""

        def setup(self, training: Training) -> None:
            self.model = training.model
            self.kept: list[dict[str, Tensor]] = []

        def on_gradients(self, step: int) -> None:
            for parameter in self.model.parameters():
                if parameter.grad is not None and step in (7, 8):
                    parameter.grad.mul_(1e4 if step == 7 else float("nan"))

        def on_step(self, step: int) -> None:
            self.kept.append({name: tensor.detach().clone() for name, tensor in self.model.named_parameters()})

    spoil, record = Spoil(), Record()
    spec = {"name": "skip-spikes", "warmup_steps": 4, "window": 8}
    make_trainer(steps=10, log_every=10, validation=None, spec_callbacks=[spec], callbacks=[spoil, record]).run()
    assert same(spoil.kept[6], spoil.kept[7])
    assert same(spoil.kept[6], spoil.kept[8])
    assert not same(spoil.kept[8], spoil.kept[9])
    assert record.metrics[10]["spikes/skipped"] == 2
    assert math.isfinite(record.metrics[10]["grad_norm"])
    messages = [entry.getMessage() for entry in caplog.records]
    assert messages[0].startswith("step 8 is skipped: the gradient norm is ")
    assert messages[1] == "step 9 is skipped: the gradient norm is nan"


def test_training_without_spikes_is_unchanged(make_trainer: MakeTrainer) -> None:
    plain, careful = make_trainer("plain"), make_trainer("careful", spec_callbacks=[{"name": "skip-spikes", "sigma": 1e9}])
    plain.run()
    careful.run()
    assert same(weights(plain), weights(careful))


def test_many_spikes_in_a_row_end_the_training(make_trainer: MakeTrainer) -> None:
    class Break(Callback):
        def setup(self, training: Training) -> None:
            self.model = training.model

        def on_gradients(self, step: int) -> None:
            for parameter in self.model.parameters():
                if parameter.grad is not None and step >= 5:
                    parameter.grad.fill_(float("inf"))

    trainer = make_trainer(spec_callbacks=[{"name": "skip-spikes", "limit": 2}], callbacks=[Break()])
    with pytest.raises(TrainingError, match="3 steps in a row would be skipped, the last one step 8: the gradient norm is"):
        trainer.run()


# -- errors of authors -----------------------------------------------------------------------------------------------


class Careless(Callback):
    """Callback that returns no plan, or whose state cannot be stored."""

    def __init__(self, fails: str) -> None:
        self.fails = fails
        self.steps = 0

    def plan(self, step: int, plan: StepPlan) -> StepPlan:
        return None if self.fails == "plan" else plan  # type: ignore[return-value]

    def on_step(self, step: int) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"seen": {1, 2}} if self.fails == "state" else {}


def test_callback_that_returns_no_plan_is_named(make_trainer: MakeTrainer) -> None:
    with pytest.raises(TrainingError, match="callback Careless: plan returned None, not a StepPlan"):
        make_trainer(callbacks=[Careless("plan")]).run()


def test_state_that_cannot_be_stored_is_reported_before_the_first_step(make_trainer: MakeTrainer) -> None:
    callback = Careless("state")
    with pytest.raises(CheckpointError, match=r"callback Careless's state\.seen is of type set, which cannot be saved"):
        make_trainer(callbacks=[callback]).run()
    assert callback.steps == 0, "otherwise, the steps before the first checkpoint are lost"
