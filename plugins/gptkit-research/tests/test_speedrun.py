"""The preset `nanogpt-speedrun` at its size, and in a shrunk version that learns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import gptkit

SMALL = [
    *("tokenizer=byte", "model.context_length=64", "model.d_model=48", "training.batch_size=8"),
    *("training.grad_accumulation=1", "training.compile=false", "training.steps=60", "training.log_every=1"),
    *("training.evaluate_every=null", "training.evaluate_batches=4", "training.sample_tokens=0"),
    "training.stages=[{steps: 20, attention_window: 8}, {steps: 20, attention_window: 24}, {}]",
]


def test_speedrun_has_the_parts_and_the_size_that_it_states() -> None:
    model = gptkit.build("nanogpt-speedrun", device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == 277_921_591
    layers = model.spec.layer_specs()
    tables = [getattr(layer.attention, "table", None) for layer in layers]
    assert tables == ["first", "second", "third", *[None] * 6, "first", "second", "third"]
    assert [layer.attention.window for layer in layers] == [*[384] * 3, 1792, *[384] * 7, 1792]  # type: ignore[attr-defined]
    assert {layer.block.name for layer in layers} == {"skips"}


@pytest.mark.slow
def test_shrunk_speedrun_learns(tmp_path: Path) -> None:
    """As a user does it: a spec from the preset, then a training of it."""
    command = [sys.executable, "-m", "gptkit", "new", "mine.yaml", "--from", "nanogpt-speedrun", "--no-schema"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    pattern = gptkit.open_spec(tmp_path / "mine.yaml").spec.model.layers or ()
    own = [index for index, layer in enumerate(pattern) if layer.attention.name == "value-embedding"]
    heads = ["model.attention.n_heads=4", *(f"model.layers.{index}.attention.n_heads=4" for index in own)]
    gptkit.train(tmp_path / "mine.yaml", tmp_path / "run", [*SMALL, *heads], progress=False)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[0] > 5  # ln 256 is 5.5
    assert sum(losses[-5:]) / 5 < 3
    assert gptkit.load(tmp_path / "run").generate("The ", max_new_tokens=8)
