"""A new run starts from the weights of another."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.core.errors import CheckpointError

MODEL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "context_length": 8, "attention": {"n_heads": 2}}


def spec(model: dict[str, Any] | None = None, **training: Any) -> dict[str, Any]:
    looks = {"log_every": 1, "evaluate_every": 9, "sample_tokens": 0, "device": "cpu"}
    # A tiny rate, so that the weights practically keep their initial values.
    optimizer = {"name": "sgd", "learning_rate": 1e-12}
    base = {"steps": 1, "batch_size": 2, "optimizer": optimizer, **looks, **training}
    tokenizer = {"name": "bpe", "vocab_size": 300}
    return {"tokenizer": tokenizer, "model": model or MODEL, "training": base}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> gptkit.Run:
    directory = tmp_path_factory.mktemp("runs") / "source"
    return gptkit.train(spec(steps=2, seed=5, optimizer={"name": "sgd"}), directory, progress=False)


def same(one: torch.nn.Module, other: torch.nn.Module, name: str) -> bool:
    return torch.allclose(one.get_parameter(name), other.get_parameter(name), atol=1e-8)


@pytest.mark.parametrize("what", ["run", "checkpoint", "file"])
def test_weights_of_a_run_a_checkpoint_or_a_file(source: gptkit.Run, tmp_path: Path, what: str) -> None:
    checkpoint = source.directory / "checkpoints" / "step-00000002"
    path = {"run": source.directory, "checkpoint": checkpoint, "file": checkpoint / "model.safetensors"}[what]
    run = gptkit.train(spec(init_from=str(path)), tmp_path / "run", progress=False)
    assert run.step == 1
    assert all(same(source.model, run.model, name) for name, _ in run.model.named_parameters())


def test_tokenizer_is_taken_with_the_weights(source: gptkit.Run, tmp_path: Path) -> None:
    corpus = tmp_path / "other.txt"
    corpus.write_text("zzz yyy xxx www " * 200)
    given = {**spec(init_from=str(source.directory)), "data": {"name": "text", "path": str(corpus)}}
    run = gptkit.train(given, tmp_path / "run", progress=False)
    assert run.tokenizer.encode("The quick brown fox") == source.tokenizer.encode("The quick brown fox")
    with pytest.raises(CheckpointError, match=r"the tokenizer of .* differs from that of the spec"):
        gptkit.train({**given, "tokenizer": "byte"}, tmp_path / "bytes", progress=False)
    assert not (tmp_path / "bytes" / "spec.yaml").exists()


def test_different_model_is_rejected_or_partially_loaded(
    source: gptkit.Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deeper = {**MODEL, "n_layers": 2}
    with pytest.raises(CheckpointError, match=r"does not fit the model: it lacks blocks\.1"):
        gptkit.train(spec(deeper, init_from=str(source.directory)), tmp_path / "strict", progress=False)
    init = {"path": str(source.directory), "strict": False}
    with caplog.at_level(logging.WARNING, logger="gptkit"):
        run = gptkit.train(spec(deeper, init_from=init), tmp_path / "run", progress=False)
    assert "training.init_from: initialized, since the source lacks them: blocks.1." in caplog.text
    for name, parameter in source.model.named_parameters():
        assert torch.allclose(parameter, run.model.get_parameter(name), atol=1e-8)
    assert not any(same(gptkit.build(spec(deeper)), run.model, name) for name in ("embedding.table.weight",))


def test_path_without_weights_is_rejected_before_writing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing contains no weights: it does not exist"):
        gptkit.train(spec(init_from=str(tmp_path / "nothing")), tmp_path / "run", progress=False)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(CheckpointError, match="nothing contains no weights: it is empty"):
        gptkit.train(spec(init_from=str(tmp_path / "nothing")), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "spec.yaml").exists()


def test_init_from_cannot_change_when_the_run_is_resumed(source: gptkit.Run, tmp_path: Path) -> None:
    gptkit.train(spec(init_from=str(source.directory)), tmp_path / "run", progress=False)
    with pytest.raises(CheckpointError, match=r"training\.init_from"):
        gptkit.resume(tmp_path / "run", ["training.steps=2", "training.init_from=elsewhere"], progress=False)
    assert gptkit.resume(tmp_path / "run", ["training.steps=2"], progress=False).step == 2
