"""Training loop: results, callbacks, stopping and resuming."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gptkit.core.errors import TrainingError
from gptkit.kinds.callback import Callback, Training
from gptkit.model.gpt import GPT
from gptkit.training.evaluation import Batch
from gptkit.training.loop import Trainer
from gptkit.training.records import MetricsFile, SamplesFile, read_metrics
from gptkit.training.stop import StopRequest
from tests.support.bigram import VOCABULARY, MakeTrainer, batch


class Diary(Callback):
    """Tracker that records all calls."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.metrics: dict[int, dict[str, float]] = {}
        self.error: BaseException | None = None

    def on_step(self, step: int) -> None:
        self.events.append(("step", step))

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self.events.append(("metrics", step))
        self.metrics[step] = dict(metrics)

    def on_sample(self, step: int, text: str) -> None:
        self.events.append(("sample", step))

    def on_checkpoint(self, step: int, directory: Path) -> None:
        self.events.append(("checkpoint", step))

    def on_end(self, step: int, error: BaseException | None) -> None:
        self.events.append(("end", step))
        self.error = error

    def steps(self, event: str) -> list[int]:
        return [step for name, step in self.events if name == event]


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_loss_decreases(make_trainer: MakeTrainer) -> None:
    diary = Diary()
    make_trainer(steps=60, callbacks=[diary]).run()
    assert diary.metrics[60]["validation_loss"] < 0.5 * diary.metrics[0]["validation_loss"]


def test_periodic_actions_happen_at_their_steps(make_trainer: MakeTrainer) -> None:
    diary = Diary()
    make_trainer(sample_every=5, callbacks=[diary], write=lambda step: "text").run()
    assert diary.steps("step") == list(range(1, 11))
    assert diary.steps("checkpoint") == [4, 8, 10]
    assert diary.steps("sample") == [0, 5, 10]
    assert [step for step, numbers in diary.metrics.items() if "loss" in numbers] == [3, 6, 9, 10]
    assert [step for step, numbers in diary.metrics.items() if "validation_loss" in numbers] == [0, 4, 8, 10]
    assert diary.events[-1] == ("end", 10)
    assert diary.error is None


def test_logged_loss_is_the_mean_since_the_last_line(make_trainer: MakeTrainer) -> None:
    each, third = Diary(), Diary()
    make_trainer("a", log_every=1, steps=6, callbacks=[each]).run()
    make_trainer("b", log_every=3, steps=6, callbacks=[third]).run()
    losses = [each.metrics[step]["loss"] for step in (4, 5, 6)]
    assert third.metrics[6]["loss"] == pytest.approx(sum(losses) / 3, rel=1e-12)
    assert third.metrics[6]["tokens_per_second"] > 0


def test_rate_follows_the_schedule(make_trainer: MakeTrainer) -> None:
    diary = Diary()
    trainer = make_trainer(log_every=1, callbacks=[diary])
    trainer.run()
    factors = [trainer.spec.schedule.factor(step, 10) for step in range(10)]
    assert [diary.metrics[step + 1]["learning_rate"] for step in range(10)] == pytest.approx([0.05 * f for f in factors])


@pytest.mark.parametrize("with_ignored", [False, True])
def test_accumulation_equals_the_whole_batch(make_trainer: MakeTrainer, with_ignored: bool) -> None:
    def with_holes(step: int, batch_size: int, seed: int, *, first: int) -> Batch:
        inputs, targets, documents = batch(step, batch_size, seed)
        # Uneven numbers of targets; one part has none.
        targets = targets.clone()
        targets[0, :5] = -100
        targets[2:4] = -100
        return inputs, targets, documents

    train = with_holes if with_ignored else batch
    whole = make_trainer("a", dropout=0.0, train=train)
    parts = make_trainer("b", dropout=0.0, train=train, grad_accumulation=4)
    whole.run()
    parts.run()
    for name, tensor in weights(whole).items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, weights(parts)[name], atol=1e-5), name


@pytest.mark.parametrize("accumulation", [1, 4])
def test_batch_without_targets_has_loss_zero(make_trainer: MakeTrainer, accumulation: int) -> None:
    """Also if the model's loss is then undefined."""

    def masked(step: int, batch_size: int, seed: int, *, first: int) -> Batch:
        inputs, targets, documents = batch(step, batch_size, seed)
        return inputs, torch.full_like(targets, -100) if step < 4 else targets, documents

    diary = Diary()
    trainer = make_trainer(train=masked, grad_accumulation=accumulation, log_every=1, callbacks=[diary])
    trainer.run()
    losses = [diary.metrics[step + 1]["loss"] for step in range(10)]
    assert losses[:4] == [0, 0, 0, 0]
    assert all(loss > 0 for loss in losses[4:])


def test_batches_without_targets_are_reported_and_not_averaged(
    make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    def masked(step: int, batch_size: int, seed: int, *, first: int) -> Batch:
        inputs, targets, documents = batch(0, batch_size, seed)
        return inputs, torch.full_like(targets, -100) if step in (1, 2) else targets, documents

    diary, unmasked = Diary(), Diary()
    make_trainer("a", train=masked, log_every=3, steps=3, callbacks=[diary]).run()
    make_trainer("b", train=masked, log_every=1, steps=1, callbacks=[unmasked]).run()
    for name in ("loss", "grad_norm"):
        assert diary.metrics[3][name] == unmasked.metrics[1][name] > 0
    assert [message.partition(":")[0] for message in caplog.messages if "masked" in message] == ["step 2"]


def test_activation_checkpointing_trains_to_the_same_weights(make_trainer: MakeTrainer) -> None:
    spec = {"d_model": 16, "n_layers": 2, "context_length": 32, "block": {"name": "pre-norm", "dropout": 0.2}}
    kept = make_trainer("a", model=GPT(spec, VOCABULARY))
    again = make_trainer("b", model=GPT(spec, VOCABULARY), recompute="blocks")
    kept.run()
    again.run()
    for name, tensor in weights(kept).items():
        assert torch.allclose(tensor, weights(again)[name], atol=1e-6), name
    with pytest.raises(TrainingError, match="recompute is 'blocks', but the model is a Bigram"):
        make_trainer("c", recompute="blocks")


def test_document_ids_reach_the_model(make_trainer: MakeTrainer) -> None:
    seen: list[Tensor] = []

    def with_documents(step: int, batch_size: int, seed: int, *, first: int) -> Batch:
        inputs, targets, _ = batch(step, batch_size, seed)
        return inputs, targets, torch.arange(batch_size)[:, None].expand_as(inputs)

    trainer = make_trainer(steps=1, train=with_documents, validation=None, grad_accumulation=2)
    trainer.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["documents_BT"]), with_kwargs=True
    )
    trainer.run()
    assert torch.equal(torch.cat(seen)[:, 0], torch.arange(8))


def test_gradients_are_clipped(make_trainer: MakeTrainer) -> None:
    settings: dict[str, Any] = {
        "steps": 1,
        "optimizer": {"name": "sgd", "learning_rate": 1.0, "momentum": 0.0},
        "schedule": "constant",
    }
    trainer = make_trainer(clip=0.001, **settings)
    before = weights(trainer)
    trainer.run()
    moved = [weights(trainer)[name] - before[name] for name in ("table.weight", "mix.weight", "mix.bias")]
    assert math.sqrt(sum(float(change.square().sum()) for change in moved)) == pytest.approx(0.001, rel=1e-2)


def test_resumed_training_equals_an_uninterrupted_one(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    def records(name: str) -> list[Callback]:
        return [MetricsFile(tmp_path / name / "metrics.jsonl"), SamplesFile(tmp_path / name / "samples.txt")]

    def numbers(name: str) -> list[dict[str, float]]:
        rows = list(read_metrics(tmp_path / name / "metrics.jsonl"))
        return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows]

    settings: dict[str, Any] = {"sample_every": 3, "write": lambda step: f"text of {step}"}
    whole = make_trainer("whole", callbacks=records("whole"), **settings)
    whole.run()

    class Crash(Callback):
        def on_step(self, step: int) -> None:
            if step == 7:
                raise RuntimeError("power cut")

    broken = make_trainer("broken", callbacks=[*records("broken"), Crash()], **settings)
    with pytest.raises(RuntimeError, match="power cut"):
        broken.run()
    assert numbers("broken")[-1]["step"] == 6
    latest = broken._checkpoints.latest()
    assert latest is not None
    assert latest.name == "step-00000004"
    resumed = make_trainer("broken", callbacks=records("broken"), **settings)
    resumed.resume(latest)
    assert resumed.step == 4
    resumed.run()
    assert same(weights(whole), weights(resumed))
    assert numbers("broken") == numbers("whole")
    assert (tmp_path / "broken/samples.txt").read_text() == (tmp_path / "whole/samples.txt").read_text()


def test_dropout_depends_on_seed_and_step_only(make_trainer: MakeTrainer) -> None:
    def disturb(step: int) -> str:
        torch.rand(step + 1)
        return ""

    one, other = make_trainer("a", sample_every=1, write=disturb), make_trainer("b")
    one.run()
    other.run()
    assert same(weights(one), weights(other))


def test_random_state_of_the_caller_is_restored(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(steps=2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer.run()
    assert torch.equal(torch.rand(3), expected)


def test_seeds_give_different_results(make_trainer: MakeTrainer) -> None:
    one, other = make_trainer("a"), make_trainer("b", seed=1)
    one.run()
    other.run()
    assert not same(weights(one), weights(other))


def test_finished_training_does_not_change(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.run()
    diary = Diary()
    again = make_trainer(callbacks=[diary])
    latest = trainer._checkpoints.latest()
    assert latest is not None
    again.resume(latest)
    again.run()
    assert same(weights(trainer), weights(again))
    assert diary.events == [("end", 10)]


class SignalAt(Callback):
    def __init__(self, step: int, number: signal.Signals, times: int = 1) -> None:
        self.step, self.number, self.times = step, number, times

    def on_step(self, step: int) -> None:
        if step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_finishes_the_step_and_saves(make_trainer: MakeTrainer, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    diary = Diary()
    trainer = make_trainer(callbacks=[SignalAt(6, number), diary])
    trainer.run()
    assert trainer.stopped
    assert trainer.step in (6, 7)  # the signal arrives during step 6
    assert trainer._checkpoints.steps()[-1] == trainer.step
    assert isinstance(diary.error, KeyboardInterrupt)
    assert signal.getsignal(number) is before
    resumed, whole = make_trainer(), make_trainer("whole")
    latest = trainer._checkpoints.latest()
    assert latest is not None
    resumed.resume(latest)
    resumed.run()
    whole.run()
    assert same(weights(resumed), weights(whole))


def test_second_signal_stops_immediately(make_trainer: MakeTrainer) -> None:
    diary = Diary()
    trainer = make_trainer(callbacks=[diary, SignalAt(6, signal.SIGINT, times=2)])
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert diary.steps("checkpoint") == [4]
    assert diary.events[-1] == ("end", 6)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a signal of POSIX")
@pytest.mark.parametrize("ignored", [False, True])
def test_closed_terminal_stops_once_unless_ignored(make_trainer: MakeTrainer, ignored: bool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        trainer = make_trainer(callbacks=[SignalAt(6, signal.SIGHUP, times=2)])  # of the shell and of the terminal
        trainer.run()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert trainer.stopped is not ignored


@pytest.mark.parametrize("several", [False, True])
def test_launcher_does_not_end_a_process_that_reports_an_error(several: bool) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with StopRequest(several=several):
            pass
        assert signal.getsignal(signal.SIGTERM) == before
        with pytest.raises(TrainingError), StopRequest(several=several):
            raise TrainingError("lost the connection")
        assert (signal.getsignal(signal.SIGTERM) == signal.SIG_IGN) is several
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_non_finite_loss_ends_the_training(make_trainer: MakeTrainer, where: str) -> None:
    class Poison(Callback):
        def setup(self, training: Training) -> None:
            self.weight = training.model.get_parameter("mix.weight")

        def on_step_start(self, step: int) -> None:
            if step == 4:
                if where == "loss":
                    self.weight.data.fill_(float("nan"))
                else:
                    self.weight.register_hook(lambda gradient: gradient * float("inf"))

    trainer = make_trainer(checkpoint_every=2, clip=None, callbacks=[Poison()])
    with pytest.raises(TrainingError) as caught:
        trainer.run()
    assert "at step 5" in caught.value.message
    assert "step-00000004" in str(caught.value)
    assert "learning_rate" in str(caught.value)
    assert "training.clip" in str(caught.value)
    assert trainer._checkpoints.steps() == [2, 4]


def test_loop_synchronizes_only_when_it_logs(make_trainer: MakeTrainer) -> None:
    rare: dict[str, Any] = {"evaluate_every": None, "checkpoint_every": None, "sample_every": None}
    trainer = make_trainer(steps=12, log_every=6, validation=None, **rare)
    trainer.device = torch.device("meta")  # any device but the CPU, on which synchronization is free
    fetched: list[int] = []
    fetch = trainer._fetch
    trainer._take_step = lambda: torch.ones(2)  # type: ignore[method-assign]
    trainer._fetch = lambda: (fetched.append(trainer.step), fetch())[1]  # type: ignore[func-returns-value, method-assign]
    trainer.run()
    assert sorted(set(fetched)) == [6, 12]


@pytest.mark.slow
def test_compiled_blocks_train_to_the_same_weights_and_are_released(make_trainer: MakeTrainer) -> None:
    def tokens(step: int, batch_size: int, seed: int, *, first: int) -> Batch:
        inputs, targets, _ = batch(step, batch_size, seed)
        return inputs, targets, None

    def train(name: str, compiled: bool) -> GPT:
        spec = {"d_model": 16, "n_layers": 3, "context_length": 8, "attention": {"n_heads": 2}}
        model = GPT(spec, VOCABULARY)

        def write(step: int) -> str:
            # Sequences of varying lengths, as in generation, which must not be compiled.
            before = graphs["unique_graphs"]
            with torch.no_grad():
                for length in range(1, 7):
                    model(torch.zeros(1, length, dtype=torch.int64))
            assert graphs["unique_graphs"] == before
            return ""

        make_trainer(name, model=model, train=tokens, compile=compiled, steps=4, sample_every=2, write=write).run()
        return model

    torch._dynamo.reset()  # other tests of the process compile blocks, up to the limit
    torch._dynamo.utils.counters.clear()
    graphs = torch._dynamo.utils.counters["stats"]
    eager, compiled = train("eager", False), train("compiled", True)
    # Three blocks share their graphs: for the first and the later ones, in training and in evaluation.
    assert 0 < graphs["unique_graphs"] < 2 * len(compiled.blocks)
    for one, two in zip(eager.parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-4)
    assert all(block._compiled_call_impl is None for block in compiled.blocks)
