"""`training.freeze`: parameters that are not trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.core.errors import CheckpointError, SpecError, TrainingError
from gptkit.nn.freezing import frozen_names
from tests.support.bigram import MakeTrainer

MODEL: dict[str, Any] = {"d_model": 16, "n_layers": 2, "context_length": 8, "attention": {"n_heads": 2}}


def spec(model: dict[str, Any] | None = None, **training: Any) -> dict[str, Any]:
    base = {"steps": 2, "batch_size": 2, "evaluate_every": None, "evaluate_batches": 1, "sample_tokens": 0, "device": "cpu"}
    return {"tokenizer": "byte", "model": {**MODEL, **(model or {})}, "training": {**base, **training}}


def changed(run: gptkit.Run) -> set[str]:
    before = dict(gptkit.build(run.spec).named_parameters())
    return {name for name, parameter in run.model.named_parameters() if not torch.equal(parameter, before[name])}


@pytest.mark.parametrize(
    ("patterns", "trained"),
    [
        (["embedding", "blocks.0"], ("blocks.1.", "final_norm.", "head.")),
        (["*", "!*norm*"], ("blocks.0.attention_norm.", "blocks.0.feedforward_norm.", "blocks.1.", "final_norm.")),
        (["blocks.[01].attention.*"], ("embedding.", "blocks.", "final_norm.", "head.")),
    ],
)
def test_frozen_parameters_do_not_change(tmp_path: Path, patterns: list[str], trained: tuple[str, ...]) -> None:
    run = gptkit.train(spec(freeze=patterns), tmp_path / "run", progress=False)
    names = [name for name, _ in run.model.named_parameters()]
    expected = set(names) - frozen_names(run.model, patterns)
    assert changed(run) == expected
    assert expected
    assert all(name.startswith(trained) for name in expected)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("recompute", ["none", "blocks"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, optimizer: str, recompute: str) -> None:
    # The factor of a constant schedule does not depend on the number of steps.
    given = spec(freeze=["embedding", "blocks.0"], optimizer=optimizer, recompute=recompute, steps=3, schedule="constant")
    whole = gptkit.train(given, tmp_path / "whole", progress=False)
    gptkit.train(given, tmp_path / "parts", ["training.steps=2"], progress=False)
    parts = gptkit.resume(tmp_path / "parts", ["training.steps=3"], progress=False)
    for (name, one), (_, other) in zip(whole.model.named_parameters(), parts.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_optimizer_holds_trainable_parameters_only(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(freeze=["table"])
    held = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    named = dict(trainer.model.named_parameters())
    assert held == {id(named[name]) for name in named if not name.startswith("table")}
    before = named["table.weight"].detach().clone()
    trainer.run()
    assert torch.equal(before, named["table.weight"])


def test_a_pattern_that_matches_nothing_is_refused_with_its_location(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    model = "model: {d_model: 16, n_layers: 2, attention: {n_heads: 2}}"
    file.write_text(f"{model}\ntraining:\n  freeze: [embedding, blocks.*.atention]\n")
    with pytest.raises(SpecError, match=r"'blocks\.\*\.atention' matches no parameter .*'blocks\.\*\.attention'") as caught:
        gptkit.build(file)
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (3, 23)


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(SpecError, match=r"training\.freeze.*every parameter is frozen"):
        gptkit.build(spec(freeze=["*"]))


def test_model_without_a_spec_is_checked_too(make_trainer: MakeTrainer) -> None:
    with pytest.raises(TrainingError, match=r"'tabel' matches no parameter .*'table'"):
        make_trainer(freeze=["tabel"])


def test_frozen_parameters_cannot_change_when_a_run_is_resumed(tmp_path: Path) -> None:
    gptkit.train(spec(freeze=["embedding"]), tmp_path / "run", progress=False)
    with pytest.raises(CheckpointError, match=r"training\.freeze"):
        gptkit.resume(tmp_path / "run", ["training.steps=3", "training.freeze=[blocks.0]"], progress=False)


def test_progress_display_reports_the_trainable_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = gptkit.train(spec(freeze=["embedding"]), tmp_path / "run")
    total = sum(parameter.numel() for parameter in run.model.parameters())
    trained = total - run.model.embedding.table_VE.numel()
    assert f"trains {trained:,} of {total:,} parameters" in capsys.readouterr().err.replace("\n", " ")
