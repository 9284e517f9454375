"""A spec from the preset `nanochat-d12`, with a smaller width, is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gptkit
from gptkit.cli.main import app

SMALL = [
    *("tokenizer=byte", "model.context_length=64", "model.d_model=48", "model.n_layers=4", "model.vocab_size=null"),
    *("model.attention.n_heads=4", "model.attention.n_kv_heads=4", "model.feedforward.d_hidden=96"),
    *("training.batch_size=8", "training.steps=60", "training.log_every=1", "training.sample_tokens=0"),
    *("training.evaluate_every=null", "training.evaluate_batches=4", "training.optimizer.learning_rate=3e-3"),
]


@pytest.mark.slow
def test_spec_from_nanochat_is_trained_and_generates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(app, ["new", "mine.yaml", "--from", "nanochat-d12", "--no-schema"])
    assert made.exit_code == 0, made.output
    run = gptkit.train("mine.yaml", tmp_path / "run", SMALL, progress=False)
    assert run.spec.model.head.softcap == 15  # type: ignore[attr-defined]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[0] > 5  # ln 256 is 5.5
    assert sum(losses[-5:]) / 5 < 3.3
    assert gptkit.load(tmp_path / "run").generate("The ", max_new_tokens=8)
