"""Plans of distributed trainings: sizes and collectives computed by hand, layouts, and wrong input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gptkit.core.errors import CapacityError
from gptkit.model.gpt import GPT
from gptkit.model.plan import state_bytes
from gptkit.model.work import Operation, Saved, Work, peak_bytes, training_work
from gptkit.runs.opening import open_spec
from gptkit.runs.planning import plan_training
from gptkit.runs.planning_devices import DEVICES, Device, with_rates
from gptkit.runs.planning_time import Layout, compute_time, ring_collective
from gptkit.runs.spec import ExperimentSpec
from tests.support.command_line import Call

V, E, LAYERS, T, HIDDEN = 300, 32, 2, 16, 128
BF16, FP32 = torch.bfloat16, torch.float32
DEVICE = Device("d", "a device", 100.0, 50.0, 10**9, 10.0, 4.0, 8, 2.0, "none", 1.0, 1.0, 1.0, 0.0, True, 0)


def spec(**changes: Any) -> ExperimentSpec:
    model = {
        "context_length": T,
        "d_model": E,
        "n_layers": LAYERS,
        "position": "none",
        "attention": {"name": "multi-head", "n_heads": 2},
        "norm": "rms",
        "feedforward": {"name": "mlp", "d_hidden": HIDDEN, "activation": "relu"},
        "head": {"name": "linear", "tied": False},
    }
    training = {"batch_size": 8, "device": "cpu", "precision": "fp32", "optimizer": "adamw"}
    return open_spec({"model": model, "tokenizer": "byte", "training": training}, changes=changes).spec


def shell(given: ExperimentSpec) -> GPT:
    return GPT(given.model, V, device="meta")


def of(work: Work, component: str) -> list[Operation]:
    return [each for each in work.operations if each.component == component]


def test_operations_of_a_small_model() -> None:
    rows = 3
    work = training_work(shell(spec()), rows, T)
    tokens = rows * T
    # Two products of 2 · tokens · E · HIDDEN operations in each layer.
    assert sum(each.flops for each in of(work, "feed-forward")) == LAYERS * 2 * 2 * tokens * E * HIDDEN
    # Four projections, and scores and their sum of values, half of which the causal mask excludes.
    attention = LAYERS * (4 * 2 * tokens * E * E + 2 * 2 * rows * T * T * E / 2)
    assert sum(each.flops for each in of(work, "attention")) == attention
    (loss,) = [each for each in work.operations if each.whole]
    assert loss.flops == 3 * 2 * tokens * E * V  # logits, and the gradients of vectors and weights


def test_saved_tensors_of_a_feedforward_and_their_casts() -> None:
    rows, tokens = 3, 3 * T
    difference = {}
    for hidden in (HIDDEN, 2 * HIDDEN):
        given = spec(**{"model.feedforward.d_hidden": hidden})
        for precision in (FP32, BF16):
            work = training_work(shell(given), rows, T, precision)
            difference[hidden, precision] = sum(work.saved.by_block.values())
    extra = LAYERS * HIDDEN
    # The activation's result serves the activation and the next product; in bf16 at half the size, with two cast weights.
    assert difference[2 * HIDDEN, FP32] - difference[HIDDEN, FP32] == extra * tokens * 4
    assert difference[2 * HIDDEN, BF16] - difference[HIDDEN, BF16] == extra * (tokens * 2 + 2 * E * 2)


def test_gradients_are_those_of_trained_parameters() -> None:
    model = shell(spec())
    total = sum(p.numel() for p in model.parameters()) * 4
    assert sum(training_work(model, 1, T).gradients.values()) == total
    model.embedding.requires_grad_(False)
    assert sum(training_work(model, 1, T).gradients.values()) == total - V * E * 4


def test_optimizer_states() -> None:
    for name, moments in (("adamw", 2), ("sgd", 1)):
        given = spec(**{"training.optimizer": name})
        model = shell(given)
        expected = moments * 4 * sum(p.numel() for p in model.parameters())
        assert state_bytes(given.training.optimizer, model) in (expected, 0 if name == "sgd" else expected)


def test_peak_of_two_blocks_by_hand() -> None:
    work = Work((), Saved({-1: 10, 0: 100, 1: 100}, {0: 40, 1: 40}, 5), {-1: 7, 0: 30, 1: 30}, {0: 30, 1: 30}, 3)
    assert peak_bytes(work) == 10 + 200 + 30  # the last block's activations, still there, and its gradients
    assert peak_bytes(work, accumulates=True) == 240 + 67
    assert peak_bytes(work, "blocks") == 10 + 5 + 100 + 60  # block 0: its input, its activations again, all gradients
    assert peak_bytes(work, tensor=2) == 10 + 2 * (60 + 20) + 15


@pytest.mark.parametrize(
    ("operation", "processes", "stride", "sent", "seconds"),
    [
        ("all-gather", 4, 1, 75.0, 75 / 4),
        ("reduce-scatter", 8, 1, 87.5, 87.5 / 4),
        ("all-reduce", 2, 1, 100.0, 100 / 4),
        ("all-reduce", 4, 8, 150.0, 150 / 2),  # over the network
    ],
)
def test_ring_collectives_by_hand(operation: str, processes: int, stride: int, sent: float, seconds: float) -> None:
    each = ring_collective("x", operation, 100.0, processes, stride, DEVICE)
    assert each.bytes == sent
    assert each.seconds == pytest.approx(seconds, rel=1e-3)
    assert each.link == ("node" if stride == 1 else "network")


def test_roofline_by_hand() -> None:
    operations = [
        Operation("feed-forward", 0, 1000.0, 10, False),  # 10 s of arithmetic, 1 s of memory
        Operation("norm", 0, 0.0, 50, False),  # 5 s of memory
        Operation("head and loss", -1, 300.0, 10, True),  # 3 s, with its gradients
    ]
    options: dict[str, Any] = {"compiled": False, "recompute": False, "tensor": 1}
    plain = compute_time(operations, DEVICE, BF16, **options)
    assert (plain.forward, plain.backward, plain.products) == (18, 30, 33)
    assert compute_time(operations, DEVICE, BF16, **{**options, "recompute": True}).backward == 45
    assert compute_time(operations, DEVICE, BF16, **{**options, "tensor": 2}).forward == 13
    assert compute_time(operations, DEVICE, BF16, **{**options, "tensor": 2, "vocabulary": True}).forward == 11.5
    assert compute_time(operations, DEVICE, BF16, **{**options, "compiled": True}).forward == 10 + 2 + 3
    assert compute_time(operations, DEVICE, FP32, **options).forward == 20 + 5 + 6
    slow = replace(DEVICE, launch=10.0)
    assert compute_time(operations, slow, BF16, **options).forward == 30  # three operations, started one by one
    assert compute_time(operations, replace(slow, concurrent=False), BF16, **options).forward == 48


def test_memory_by_hand_and_sharded() -> None:
    given = spec()
    parameters = sum(p.numel() for p in shell(given).parameters())
    one = plan_training(given, V, DEVICE)
    assert one.memory.weights == 4 * parameters
    assert one.memory.optimizer == 8 * parameters
    assert one.checkpoint_bytes == 12 * parameters
    assert one.rows == 8
    four = plan_training(given, V, DEVICE, 4, Layout(1, 4))
    assert four.memory.weights == parameters
    assert four.memory.gradients == parameters
    assert four.rows == 2
    names = [(each.name, each.operation, each.processes) for each in four.communication]
    assert names == [
        ("weights, forward", "all-gather", 4),
        ("weights, backward", "all-gather", 4),
        ("gradients", "reduce-scatter", 4),
    ]
    assert [each.bytes for each in four.communication] == [3 * parameters] * 3


@pytest.mark.parametrize("even", [True, False])
def test_tensor_parallelism_divides_attention_feedforward_and_vocabulary(even: bool) -> None:
    given, vocab_size = spec(), V if even else V + 1
    divided = LAYERS * (4 * E * E + 2 * E * HIDDEN) + (2 * V * E if even else 0)
    parameters = sum(p.numel() for p in GPT(given.model, vocab_size, device="meta").parameters())
    two = plan_training(given, vocab_size, DEVICE, 2, Layout(1, 1, 2))
    biases = two.memory.weights - 4 * (parameters - divided // 2)
    assert -4 * LAYERS * (4 * E + HIDDEN) <= biases <= 0
    assert two.memory.gradients == two.memory.weights
    (each,) = two.communication
    # Two all-reduces for each of four modules, and for both ends together, of the vectors of 8 windows.
    assert (each.operation, each.bytes) == ("all-reduce", (10 if even else 8) * 8 * T * E * 4)
    assert each.exposed == each.seconds


def test_replicas_exchange_gradients_and_round_the_batch_up() -> None:
    three = plan_training(spec(), V, DEVICE, 3)
    assert str(three.layout) == "data 3 × shard 1 × tensor 1"
    assert three.batch_size == 9
    (each,) = three.communication
    assert each.bytes == pytest.approx(2 * 2 / 3 * three.memory.gradients)
    parts = three.forward + three.backward + three.optimizer + each.exposed
    assert three.step_seconds == pytest.approx(parts)
    assert three.tokens_per_second == pytest.approx(9 * T / parts)


def test_smallest_division_that_fits_is_proposed() -> None:
    given = spec()
    needed = {count: plan_training(given, V, DEVICE, 8, Layout(8 // count, count)).memory.total for count in (1, 2, 4, 8)}
    assert needed[1] > needed[2] > needed[4] > needed[8]
    tight = replace(DEVICE, memory=needed[4])
    chosen = plan_training(given, V, tight, 8)
    assert chosen.proposed
    assert chosen.layout.shard * chosen.layout.tensor <= 4
    with pytest.raises(CapacityError) as raised:
        plan_training(given, V, tight, 8, Layout(8))
    assert f"The nearest layout that fits is {chosen.layout}" in (raised.value.hint or "")
    with pytest.raises(CapacityError, match="needs"):
        plan_training(given, V, replace(DEVICE, memory=1000), 8)


def test_measured_factor_divides_the_rates() -> None:
    given = spec()
    slower = with_rates(DEVICE, 2.0)
    assert plan_training(given, V, slower).step_seconds == pytest.approx(2 * plan_training(given, V, DEVICE).step_seconds)


def test_devices_have_plausible_numbers() -> None:
    assert set(DEVICES) == {"h100", "h200", "b200", "a100", "l40s", "4090", "mi300x"}
    for device in DEVICES.values():
        assert 1e14 < device.bf16 < 1e16
        assert device.fp32 < device.bf16
        assert 5e11 < device.bandwidth < 1e13
        assert device.network < device.link < device.bandwidth
        assert device.source


def test_published_speed_of_gpt2_on_h100() -> None:
    overrides = ["training.batch_size=480", "training.grad_accumulation=8", "training.compile=true"]
    given = open_spec(
        "gpt2", [*overrides, *(f"model.{part}.dropout=0" for part in ("attention", "block", "embedding"))]
    ).spec
    one = plan_training(given, 50257, DEVICES["h100"])
    assert 0.75 * 426e3 < one.tokens_per_second < 1.25 * 475e3


def test_command_prints_the_plan(call: Call, project: Path) -> None:
    arguments = ["plan", "mini.yaml", "--gpus", "16", "--shard", "2", "--tokens", "10M", "--price", "2", "-q"]
    shown = call(*arguments, env={"COLUMNS": "140"}).stdout
    for text in (
        "data 8 × shard 2 × tensor 1",
        "as given",
        "all-gather of 2",
        "all-reduce of 8",
        "device hours",
        "at 2 for",
    ):
        assert text in shown
    data = json.loads(call(*arguments, "--json").stdout)
    assert data["training"]["tokens"] == 10**7
    assert data["training"]["cost"] == pytest.approx(2 * data["training"]["device_hours"])
    assert data["layout"] == {"data": 8, "shard": 2, "tensor": 1}


def test_command_measures_this_machine(call: Call, project: Path) -> None:
    data = json.loads(call("plan", "mini.yaml", "--gpu", "cpu", "--measure", "--json", "-q").stdout)
    assert data["measured_factor"] > 0
    assert data["device"]["name"] == "cpu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.yaml"], "absent.yaml"),
        (["mini.yaml", "--gpu", "h900"], "unknown device 'h900'"),
        (["mini.yaml", "--gpus", "0"], "--gpus"),
        (["mini.yaml", "--gpus", "8", "--shard", "3"], "8 devices cannot form groups of 3"),
        (["mini.yaml", "--gpus", "8", "--data", "2", "--shard", "2"], "are 4 processes, but there are 8 devices"),
        (["mini.yaml", "--gpus", "4", "--tensor", "4"], "the 2 heads of attention 'multi-head' cannot be divided over 4"),
        (["mini.yaml", "--tokens", "many"], "'many' is not a number of tokens"),
        (["mini.yaml", "--tokens", "0"], "is not a number of tokens"),
        (["mini.yaml", "--price", "-1"], "--price"),
        (["mini.yaml", "--measure"], "--measure takes steps on this machine"),
        pytest.param(["llama-3.1-8b", "--gpu", "4090"], "per process with", marks=pytest.mark.slow),
        (["mini.yaml", "-s", "model.d_model=1000000000"], "a model of width 1,000,000,000"),
    ],
)
def test_wrong_input_is_one_message(call: Call, project: Path, arguments: list[str], message: str) -> None:
    if arguments[-1] == "--measure" and torch.cuda.is_available():
        pytest.skip("the planned GPU may be the one of this machine, which can then be measured")
    shown = call("plan", *arguments, "-q", code=2, env={"COLUMNS": "200"}).stderr
    assert message in " ".join(shown.split())
    assert "Traceback" not in shown
