"""Training in fp8: which products are computed in it, what the training learns, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import gptkit
from gptkit.cli.main import app
from gptkit.core.errors import TrainingError
from gptkit.model.gpt import GPT
from gptkit.ops.fp8_linear import has_fp8
from gptkit.training import fp8
from gptkit.training.fp8 import compute_in_fp8, leave_fp8
from tests.support.processes import launch

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not has_fp8(CPU), reason="this torch has no fp8 products on a CPU")

MODEL = {"d_model": 32, "n_layers": 2, "context_length": 32, "attention": {"n_heads": 2}}
TRAINING = {
    "steps": 40,
    "batch_size": 8,
    "device": "cpu",
    "evaluate_every": 20,
    "checkpoint_every": 20,
    "optimizer": {"name": "adamw", "learning_rate": 0.005},
    "schedule": "constant",
}


def spec(corpus: Path, **training: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "tokenizer": "byte",
        "data": {"name": "text", "path": str(corpus)},
        "training": {**TRAINING, "precision": "fp8", **training},
    }


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"{number} and {number + 1} are {2 * number + 1}\n" for number in range(600)), encoding="utf-8")
    return path


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the weights of the products that are computed in fp8."""
    shapes: list[tuple[int, ...]] = []
    original = fp8.fp8_linear

    def counted(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
        shapes.append(tuple(weight_OI.shape))
        return original(x, weight_OI, bias_O)

    monkeypatch.setattr(fp8, "fp8_linear", counted)
    return shapes


def test_projections_of_blocks_are_computed_in_training_only(computed: list[tuple[int, ...]]) -> None:
    model = GPT(MODEL, 64, seed=1)
    names = list(model.state_dict())
    expected = [tuple(module.weight.shape) for module in model.blocks.modules() if isinstance(module, nn.Linear)]
    ids = torch.arange(24).view(2, 12)
    before = model.eval()(ids).logits
    assert compute_in_fp8(model, CPU) == len(expected) > 4
    assert torch.equal(model(ids).logits, before)
    assert not computed
    logits = model.train()(ids).logits
    assert sorted(computed) == sorted(expected)  # those of embedding and head are not among them
    assert 1e-4 < (logits - before).norm() / before.norm() < 0.1
    assert list(model.state_dict()) == names
    leave_fp8(model)
    assert torch.equal(model(ids).logits, before)
    assert not any("Fp8" in type(module).__name__ for module in model.modules())


def test_other_classes_and_uneven_sizes_stay(computed: list[tuple[int, ...]]) -> None:
    class Scaled(nn.Linear):
        """A projection that computes something else."""

        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = nn.Sequential(nn.Linear(16, 24), nn.Linear(24, 32), Scaled(32, 32), nn.Linear(32, 16))
    assert compute_in_fp8(model, CPU) == 1
    model(torch.ones(2, 16))
    assert computed == [(16, 32)]


def test_training_learns_as_in_bf16(corpus: Path, tmp_path: Path, computed: list[tuple[int, ...]]) -> None:
    losses = {}
    for precision in ("fp8", "bf16"):
        run = gptkit.train(spec(corpus, precision=precision), tmp_path / precision, progress=False)
        losses[precision] = run.evaluate()["loss"]
        assert bool(computed) == (precision == "fp8")
        computed.clear()
        assert {type(module) for module in run.model.modules() if isinstance(module, nn.Linear)} == {nn.Linear}
    assert losses["bf16"] < 3.5
    assert 0 < abs(losses["fp8"] - losses["bf16"]) < 0.05


def test_resumed_training_is_the_same(corpus: Path, tmp_path: Path) -> None:
    whole = gptkit.train(spec(corpus), tmp_path / "whole", progress=False)
    gptkit.train(spec(corpus, steps=20), tmp_path / "parts", progress=False)
    parts = gptkit.train(spec(corpus), tmp_path / "parts", resume=True, progress=False)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, parts.model.state_dict()[name]), name


def test_device_without_fp8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp8, "has_fp8", lambda _: False)
    with pytest.raises(TrainingError, match="does not compute on device 'cpu'") as caught:
        compute_in_fp8(GPT(MODEL, 64), CPU)
    assert "bf16" in str(caught.value.hint)


def test_model_without_such_projections_is_refused(corpus: Path, tmp_path: Path) -> None:
    data = spec(corpus)
    data["model"] = {**MODEL, "d_model": 20, "feedforward": {"d_hidden": 30}}
    with pytest.raises(TrainingError, match="no projection whose sizes are multiples of 16"):
        gptkit.train(data, tmp_path / "run", progress=False)


def test_precision_of_a_run_cannot_change(corpus: Path, tmp_path: Path) -> None:
    gptkit.train(spec(corpus, steps=4), tmp_path / "run", progress=False)
    with pytest.raises(gptkit.GptkitError, match="precision"):
        gptkit.train(spec(corpus, steps=8, precision="bf16"), tmp_path / "run", resume=True, progress=False)


@pytest.mark.slow
def test_bench_measures_the_same_step(corpus: Path, tmp_path: Path, computed: list[tuple[int, ...]]) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(repr(spec(corpus)), encoding="utf-8")
    result = CliRunner().invoke(app, ["bench", str(path), "--steps", "2"])
    assert result.exit_code == 0, result.output
    assert "fp8" in result.stdout
    assert "of a large bf16 product" in result.stdout
    assert computed


@pytest.mark.slow
def test_compiled_training_computes_the_same(corpus: Path, tmp_path: Path) -> None:
    losses = []
    for compiled in (False, True):
        run = gptkit.train(spec(corpus, steps=3, compile=compiled), tmp_path / f"run-{compiled}", progress=False)
        losses.append(run.evaluate()["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=5e-3)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["data", "shard", "tensor"])
def test_two_processes_train_as_one(kind: str, corpus: Path, tmp_path: Path) -> None:
    """Parts of a tensor have scales of their own, so the losses are only close."""
    path = tmp_path / "spec.yaml"
    path.write_text(repr(spec(corpus, steps=10, log_every=1)), encoding="utf-8")
    losses = []
    for start in ((), ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")):
        directory = tmp_path / f"run{len(losses)}"
        options = ("--set", f"training.parallel.{kind}=2") if start else ()
        launch(*start, "-m", "gptkit", "train", str(path), str(directory), "-q", *options)
        rows = map(json.loads, (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        losses.append([row["loss"] for row in rows if "loss" in row])
    assert len(losses[0]) == 10
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=5e-3)
