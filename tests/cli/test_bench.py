"""Measurement of trainings: the parts of the time add up, refer to the right components, and errors are reported."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gptkit.runs.bench import BenchResult, bench
from gptkit.runs.bench_advice import Change, changes, try_changes
from gptkit.runs.bench_memory import PeakMemory
from gptkit.runs.bench_stages import stage_tokens
from gptkit.runs.bench_step import StepTrial
from gptkit.runs.bench_timeline import Timeline, component_times
from gptkit.runs.opening import open_spec
from gptkit.runs.spec import ExperimentSpec
from tests.support.command_line import Call

V = 300


def spec(**changes: Any) -> ExperimentSpec:
    model = {"context_length": 32, "d_model": 32, "n_layers": 2, "block": {"name": "pre-norm", "dropout": 0.1}}
    data = {"model": model, "tokenizer": "byte", "training": {"batch_size": 4, "device": "cpu", "precision": "fp32"}}
    return open_spec(data, changes=changes).spec


def phases(profile: dict[tuple[str, str], float]) -> dict[str, set[str]]:
    """Return the phases of each component."""
    return {name: {phase for phase, each in profile if each == name} for _, name in profile}


@pytest.fixture(scope="module")
def result() -> BenchResult:
    return bench(spec(), V, steps=3, generate=4)


def test_times_by_component_add_up_to_the_step(result: BenchResult) -> None:
    seconds = sorted(result.step_seconds)
    assert len(seconds) == 3
    assert sum(each.seconds for each in result.components) == pytest.approx(seconds[1])
    assert sum(each.share for each in result.components) == pytest.approx(1)
    assert result.tokens_per_second == pytest.approx(4 * 32 / seconds[1])
    assert result.lowest <= result.tokens_per_second <= result.highest
    assert result.flops_per_second == pytest.approx(result.flops_per_token * result.tokens_per_second)
    assert result.utilization == pytest.approx(result.flops_per_second / result.product_rate)


def test_profiled_step_takes_as_long_as_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    trial, clock = StepTrial(spec(), V), itertools.count()
    monkeypatch.setattr("gptkit.runs.bench_timeline.time.perf_counter", lambda: float(next(clock)))
    profile = trial.profile()
    whole = next(clock) - 1  # the first mark is at zero
    assert 0.5 * whole < sum(profile.values()) <= whole  # the rest is the instrumentation's, which is excluded


def test_components_of_a_step() -> None:
    by_component = phases(StepTrial(spec(), V).profile())
    both = {"forward", "backward"}
    for name in ("attention", "feed-forward", "norm", "residual stream", "head and loss", "embedding"):
        assert by_component[name] == both, name
    assert by_component["optimizer"] == by_component["clipping"] == by_component["data transfer"] == {"step"}


def test_joined_optimizers_are_one_component() -> None:
    by_component = phases(StepTrial(spec(**{"training.optimizer": "muon"}), V).profile())
    assert by_component["optimizer"] == {"step"}


def test_recomputation_is_a_phase_of_its_own() -> None:
    changed = spec(**{"training.recompute": "blocks", "training.grad_accumulation": 2})
    by_component = phases(StepTrial(changed, V).profile())
    assert by_component["attention"] == by_component["feed-forward"] == {"forward", "backward", "recomputation"}
    assert "recomputation" not in by_component["head and loss"] | by_component["embedding"]


def test_backward_time_belongs_to_the_component_of_the_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow backward pass of the feed-forward is its own time, not that of its neighbors."""
    now = [0.0]

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            now[0] += 1.0
            return grad

    trial = StepTrial(spec(), V)
    feedforward = trial.model.blocks[1].feedforward
    forward = feedforward.forward
    monkeypatch.setattr(feedforward, "forward", lambda x, context: Slow.apply(forward(x, context)))
    monkeypatch.setattr("gptkit.runs.bench_timeline.time.perf_counter", lambda: now[0])
    profile = trial.profile()
    assert {label: seconds for label, seconds in profile.items() if seconds} == {("backward", "feed-forward"): 1.0}


def test_instrumentation_is_removed() -> None:
    trial = StepTrial(spec(), V)
    loss = type(trial.model.head).loss
    trial.profile()
    assert trial.model.head.loss.__func__ is loss
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in trial.model.modules())


def test_times_are_scaled_to_the_plain_step() -> None:
    times = component_times({("forward", "a"): 1.0, ("backward", "a"): 2.0, ("step", "b"): 1.0}, 2.0)
    assert [(each.component, each.phase, each.seconds, each.share) for each in times] == [
        ("a", "forward", 0.5, 0.25),
        ("a", "backward", 1.0, 0.5),
        ("b", "step", 0.5, 0.25),
    ]


def test_timeline_excludes_the_instrumentation(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 3.5])
    monkeypatch.setattr("gptkit.runs.bench_timeline.time.perf_counter", lambda: next(clock))
    timeline = Timeline(torch.device("cpu"))
    for label in (("forward", "norm"), ("instrumentation", ""), ("forward", "norm"), ("step", "end")):
        timeline.mark(*label)
    assert timeline.seconds() == {("forward", "norm"): 1.5}


def test_decoding_is_measured_by_component(result: BenchResult) -> None:
    decoding = result.decoding
    assert decoding is not None
    assert (decoding.prompt_tokens, decoding.tokens) == (14, 4)
    whole = decoding.first_token_seconds + 3 / decoding.tokens_per_second
    assert sum(each.seconds for each in decoding.components) == pytest.approx(whole)
    assert {"attention", "sampling", "head and loss"} <= {each.component for each in decoding.components}


def test_peak_memory_is_that_of_an_allocation() -> None:
    memory = PeakMemory(torch.device("cpu"))
    if memory.bytes is None:
        pytest.skip("the system does not report the peak of resident memory")
    block = torch.ones(30_000_000)
    del block
    assert 0.9 * 120e6 < memory.bytes < 1.5 * 120e6


def test_changes_that_apply_are_tried() -> None:
    given = spec(**{"training.recompute": "blocks", "training.grad_accumulation": 4})
    whats = {change.what: change for change in changes(given, V)}
    assert whats["training.recompute=none"].same
    assert whats["training.grad_accumulation=2"].spec.training.grad_accumulation == 2
    assert not whats["training.batch_size=8"].same
    assert whats["every dropout=0"].spec.model.block.dropout == 0
    assert not any("recompute" in change.what or "accumulation" in change.what for change in changes(spec(), V))
    (tried,) = try_changes([whats["every dropout=0"]], V, reference=1e4)
    assert tried.tokens_per_second is not None
    assert tried.gain == pytest.approx(tried.tokens_per_second / 1e4 - 1)


def test_changes_that_cannot_be_tried_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    change = Change("training.batch_size=8", "larger", False, spec(**{"training.batch_size": 8}))
    (slow,) = try_changes([change], V, reference=1.0)
    assert slow.gain is None
    assert "not tried: its steps would take about 768 s" in slow.why
    monkeypatch.setattr("gptkit.runs.bench_advice.available_memory", lambda device: 1000)
    (large,) = try_changes([change], V, reference=1e6)
    assert large.gain is None
    assert "1 kB are free" in large.why


STAGES = [{"steps": 10, "batch_size": 2, "window": 8, "attention_window": 4}, {"window": 16, "losses": {"z_loss": 0.1}}]


def staged(**changes: Any) -> ExperimentSpec:
    return spec(**{"training.stages": STAGES, "training.steps": 30, "model.attention.window": 16, **changes})


def test_step_of_a_stage_has_its_batch_windows_and_losses() -> None:
    stages = staged().training.stages
    first, second = (StepTrial(staged(), V, stage) for stage in stages)
    assert (first.tokens, second.tokens) == (2 * 8, 4 * 16)
    assert [trial.model.blocks[0].attention.training_window for trial in (first, second)] == [4, None]
    assert [trial.model.head.loss_weights["z_loss"] for trial in (first, second)] == [0.0, 0.1]
    assert first.step() > 0


def test_stage_with_the_most_tokens_is_measured_and_all_are_timed() -> None:
    given = staged()
    assert stage_tokens(given) == [10 * 2 * 8, 20 * 4 * 16]
    measured = bench(given, V, steps=2, advise=False)
    assert (measured.stage, measured.batch_size, measured.window) == (2, 4, 16)
    assert [(each.batch_size, each.window, each.tokens) for each in measured.stages] == [(2, 8, 160), (4, 16, 1280)]
    assert measured.stages[1].tokens_per_second == measured.tokens_per_second
    for each in measured.stages:
        assert each.seconds is not None
        assert each.tokens_per_second is not None
        assert each.seconds == pytest.approx(each.tokens / each.tokens_per_second)
    # A stage that the training does not reach has no time.
    assert stage_tokens(staged(**{"training.steps": 5})) == [5 * 2 * 8, 0]


def test_changes_are_made_where_the_stage_sets_a_field() -> None:
    first = {change.what: change for change in changes(staged(), V, 0)}
    assert first["training.stages.0.batch_size=4"].spec.training.stages[0].batch_size == 4
    second = {change.what: change for change in changes(staged(), V, 1)}
    assert second["training.batch_size=8"].spec.training.batch_size == 8
    (tried,) = try_changes([second["training.batch_size=8"]], V, reference=1e4)
    assert tried.tokens_per_second is not None
    long = staged(**{"model.context_length": 512, "training.stages": [{"window": 512}]})
    assert "training.stages.0.window=256 training.batch_size=8" in {change.what for change in changes(long, V, 0)}


def test_masked_documents_are_part_of_the_batch() -> None:
    masked = StepTrial(spec(**{"data.document_mask": True}), V)
    documents_BT = masked._batch[2]
    assert documents_BT is not None
    assert documents_BT.shape == (4, 32)
    assert StepTrial(spec(**{"data.document_mask": False}), V)._batch[2] is None


def test_modules_of_compiled_blocks_are_not_timed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = StepTrial(spec(), V)
    for block in trial.model.blocks:
        block._compiled_call_impl = block._call_impl
    by_component = phases(trial.profile())
    assert by_component["compiled blocks"] == {"forward", "backward"}
    assert "attention" not in by_component
    trial.close()


@pytest.mark.slow
def test_command_prints_a_report_and_writes_nothing(call: Call, project: Path) -> None:
    before = sorted(project.iterdir())
    shown = call("bench", "mini.yaml", "--steps", "2", "--generate", "3", "-q").stdout
    for text in ("tokens/s", "of a large", "planned", "attention", "optimizer", "What to change", "time to first token"):
        assert text in shown
    data = json.loads(call("bench", "mini.yaml", "--steps", "2", "--no-advise", "--json", "-q").stdout)
    assert len(data["step_seconds"]) == 2
    assert data["tried"] == []
    assert data["decoding"] is None
    assert sorted(project.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.yaml"], "absent.yaml"),
        (["mini.yaml", "--steps", "0"], "--steps"),
        (["mini.yaml", "--generate", "16"], "Pass --generate a number from 2 to 15"),
        (["mini.yaml", "-s", "training.batch_size=100000000000"], "at a time needs about"),
        (["mini.yaml", "-s", "model.d_model=200000"], "training a model of"),
        (["mini.yaml", "-s", "training.device=cuda"], "training.device is 'cuda'"),
    ],
)
def test_wrong_input_is_one_message(call: Call, project: Path, arguments: list[str], message: str) -> None:
    if arguments[-1].endswith("cuda") and torch.cuda.is_available():
        pytest.skip("the missing device is CUDA, which this machine has")
    shown = call("bench", *arguments, "-q", code=2).stderr
    assert message in " ".join(shown.split())
    assert "Traceback" not in shown


def test_interruption_ends_cleanly(call: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: StepTrial) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(StepTrial, "step", interrupt)
    assert "Traceback" not in call("bench", "mini.yaml", "-q", code=130).stderr


def test_corpus_is_not_needed(call: Call, project: Path) -> None:
    Path("corpus.txt").unlink()
    assert "tokens/s" in call("bench", "mini.yaml", "--steps", "1", "--no-advise", "-q").stdout
