"""Distillation against torch's own divergence of all logits, and what keeps the teacher out of the model."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gptkit
from gptkit.components.head.modules import distillation
from gptkit.nn.forward import Forward
from gptkit.runs.opening import open_spec
from gptkit.runs.planning import plan_training
from gptkit.runs.planning_devices import find_device

TEXT = "the quick brown fox jumps over the lazy dog. " * 40
MODEL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "context_length": 16, "attention": {"n_heads": 2}}
TRAINING = {"steps": 2, "batch_size": 2, "sample_tokens": 0, "device": "cpu", "evaluate_every": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("corpus") / "text.txt"
    file.write_text(TEXT)
    return file


def spec(corpus: Path, model: dict[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
    data = {"name": "text", "path": str(corpus)}
    return {"tokenizer": "char", "data": data, "model": {**MODEL, **(model or {})}, "training": TRAINING, **parts}


@pytest.fixture(scope="module")
def teacher(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> gptkit.Run:
    wider = {"d_model": 24, "n_layers": 2, "position": "alibi", "context_length": 20}
    return gptkit.train(spec(corpus, wider), tmp_path_factory.mktemp("runs") / "teacher", progress=False)


def student(teacher: gptkit.Run, **fields: Any) -> gptkit.GPT:
    head = {"name": "distillation", "teacher": str(teacher.directory), **fields}
    model = gptkit.GPT({**MODEL, "head": head}, teacher.model.vocab_size).double()
    model.head.teacher.model.double()
    return model.train()


def batch(vocab_size: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(vocab_size, (2, 13), generator=torch.Generator().manual_seed(0))
    targets = ids[:, 1:].clone()
    targets[0, :4] = -100
    return ids[:, :-1], targets


@pytest.mark.parametrize("chunk", [1, 64 << 20])
@pytest.mark.parametrize("call", ["rows", "documents", "padding"])
@pytest.mark.parametrize("head", [{"name": "linear"}, {"name": "linear", "tied": True, "softcap": 4.0}])
def test_the_loss_and_its_gradients_are_those_of_the_formula(
    teacher: gptkit.Run, head: dict[str, Any], call: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "CHUNK_BYTES", chunk)
    model = student(teacher, head=head, temperature=1.7, weight=0.6)
    ids, targets = batch(model.vocab_size)
    documents = {"documents_BT": torch.tensor([[0] * 5 + [1] * 7, [0] * 12])}
    options = {"rows": {}, "documents": documents, "padding": {"left_padding_B": torch.tensor([0, 3])}}[call]
    if call == "padding":
        targets[1, :3] = -100
    out = model(ids, targets, **options)
    out.loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    model.zero_grad()
    logits = model(ids, **options).logits
    counted = targets != -100
    cross_entropy = F.cross_entropy(logits[counted], targets[counted])
    taught = F.softmax(teacher_logits(model, ids, options)[counted] / 1.7, dim=-1)
    divergence = F.kl_div(F.log_softmax(logits[counted] / 1.7, dim=-1), taught, reduction="batchmean")
    expected = cross_entropy + 0.6 * 1.7**2 * divergence
    expected.backward()
    torch.testing.assert_close(out.losses["distillation"], 0.6 * 1.7**2 * divergence)
    torch.testing.assert_close(out.loss, expected)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)


def teacher_logits(model: gptkit.GPT, ids: Tensor, options: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.head.teacher.model(ids, **options).logits
    return logits


def test_a_student_with_the_teachers_weights_has_no_divergence(teacher: gptkit.Run) -> None:
    head = {"name": "distillation", "teacher": str(teacher.directory)}
    spec = {**teacher.spec.model.model_dump(mode="json"), "head": head}
    model = gptkit.GPT(spec, teacher.model.vocab_size).train()
    weights = teacher.model.state_dict()
    model.load_state_dict({name.replace("head.", "head.head."): tensor for name, tensor in weights.items()})
    assert abs(model(*batch(model.vocab_size)).losses["distillation"].item()) < 1e-5


def test_the_teacher_is_not_part_of_the_model(teacher: gptkit.Run) -> None:
    model = student(teacher)
    plain = gptkit.GPT(MODEL, teacher.model.vocab_size)
    assert set(model.state_dict()) == {name.replace("head.", "head.head.") for name in plain.state_dict()}
    before = copy.deepcopy(teacher.model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(*batch(model.vocab_size)).loss.backward()
    optimizer.step()
    taught = model.head.teacher.model
    assert not taught.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in taught.parameters())
    for name, tensor in taught.state_dict().items():
        torch.testing.assert_close(tensor.float(), before[name])
    assert copy.deepcopy(model).head.teacher is model.head.teacher


@torch.no_grad()
def test_evaluation_and_decoding_need_no_teacher() -> None:
    model = gptkit.GPT({**MODEL, "head": {"name": "distillation", "teacher": "no/such/run"}}, 29).double().eval()
    plain = gptkit.GPT(MODEL, 29).double().eval()
    plain.load_state_dict({name.replace("head.head.", "head."): tensor for name, tensor in model.state_dict().items()})
    ids, targets = batch(29)
    torch.testing.assert_close(model(ids, targets).loss, plain(ids, targets).loss)
    torch.testing.assert_close(model(ids, last_only=True).logits, plain(ids, last_only=True).logits)
    assert model.new_cache(1).bytes == plain.new_cache(1).bytes
    with pytest.raises(gptkit.GptkitError, match=r"the teacher of the distillation .*cannot be loaded: .*no/such/run"):
        model.train()(ids, targets)


def test_a_run_is_trained_evaluated_and_sampled(teacher: gptkit.Run, corpus: Path, tmp_path: Path) -> None:
    moved = tmp_path / "teacher"
    shutil.copytree(teacher.directory, moved)
    head = {"name": "distillation", "teacher": str(moved)}
    run = gptkit.train(spec(corpus, {"head": head}), tmp_path / "run", progress=False)
    assert run.spec.model.head.teacher == str(moved)
    shutil.rmtree(moved)
    again = gptkit.load(tmp_path / "run")
    assert again.generate("the", max_new_tokens=3, seed=1) == run.generate("the", max_new_tokens=3, seed=1)
    assert again.evaluate()["loss"] > 0
    with pytest.raises(gptkit.GptkitError, match="cannot be loaded"):
        gptkit.resume(tmp_path / "run", progress=False, **{"training.steps": 4})


def test_a_relative_path_is_recorded_as_an_absolute_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = gptkit.ModelSpec.model_validate({**MODEL, "head": {"name": "distillation", "teacher": "runs/one"}})
    assert spec.head.teacher == str(tmp_path / "runs" / "one")


def test_teachers_that_do_not_fit_are_refused_before_the_training(teacher: gptkit.Run, corpus: Path, tmp_path: Path) -> None:
    head = {"name": "distillation", "teacher": str(teacher.directory)}
    other = tmp_path / "other.txt"
    other.write_text(TEXT.replace("q", "Q"))
    larger = tmp_path / "larger.txt"
    larger.write_text("0123456789" + TEXT)
    cases: list[tuple[dict[str, Any], str]] = [
        (spec(other, {"head": head}), "has another tokenizer than this model"),
        (spec(larger, {"head": head}), "token ids, but this model"),
        (spec(corpus, {"head": head, "context_length": 24}), "context length of 20, but this model has one of 24"),
    ]
    for given, message in cases:
        with pytest.raises(gptkit.GptkitError, match=message):
            gptkit.train(given, tmp_path / "run", progress=False)
        assert not (tmp_path / "run" / "spec.yaml").exists()


def test_multi_token_prediction_is_placed_inside(teacher: gptkit.Run) -> None:
    model = student(teacher, head={"name": "multi-token", "depth": 2})
    ids, targets = batch(model.vocab_size)
    losses = model(ids, targets).losses
    assert set(losses) == {"multi_token", "distillation"}
    inner = {"name": "distillation", "teacher": str(teacher.directory)}
    for outer in ({"name": "multi-token", "head": inner}, {**inner, "head": {"name": "multi-token", "head": inner}}):
        with pytest.raises(gptkit.SpecError, match="make distillation the outer head, and multi-token its head"):
            gptkit.GPT({**MODEL, "head": outer}, model.vocab_size)
    with pytest.raises(gptkit.SpecError, match="a distillation within another one"):
        gptkit.GPT({**MODEL, "head": {**inner, "head": inner}}, model.vocab_size)
    # A head of a plugin may call it several times, too.
    x_BTE, context = torch.zeros(*ids.shape, MODEL["d_model"], dtype=torch.float64), Forward(ids)
    model.head.loss(x_BTE, targets, context)
    with pytest.raises(gptkit.GptkitError, match="several times in one forward pass"):
        model.head.loss(x_BTE, targets, context)


def test_plan_counts_the_teacher(corpus: Path, teacher: gptkit.Run, tmp_path: Path) -> None:
    plans = {}
    for name, head in (("alone", "linear"), ("taught", {"name": "distillation", "teacher": str(teacher.directory)})):
        opened = open_spec(spec(corpus, {"head": head}))
        plans[name] = plan_training(opened.spec, teacher.model.vocab_size, find_device("h100", torch.float32))
    weights = sum(parameter.numel() for parameter in teacher.model.parameters()) * 4
    assert plans["alone"].memory.others == 0
    assert plans["taught"].memory.others == weights
    assert plans["taught"].memory.total - plans["alone"].memory.total >= weights
    assert plans["taught"].checkpoint_bytes == plans["alone"].checkpoint_bytes
    assert plans["taught"].forward > plans["alone"].forward

    gone = open_spec(spec(corpus, {"head": {"name": "distillation", "teacher": str(tmp_path / "gone")}})).spec
    with pytest.raises(gptkit.GptkitError, match="the size of the teacher of the distillation") as caught:
        plan_training(gone, teacher.model.vocab_size, find_device("h100", torch.float32))
    assert "Plan where the run is" in str(caught.value.hint)
