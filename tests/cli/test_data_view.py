"""`gptkit data tokens` and `gptkit data windows`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gptkit
from gptkit.training.step import TrainingStep

Call = Callable[..., Any]
SPEC = """
tokenizer: {name: word, end_token: null}
model: {d_model: 16, n_layers: 1, attention: {name: multi-head, n_heads: 2}, context_length: 4}
data: {name: text, path: corpus.txt, windows: ordered, stride: 1, shuffle: false, validation: 0.2}
training: {steps: 3, batch_size: 2, device: cpu, sample_tokens: 0, precision: fp32}
"""
TEXT = "every effort moves you one step further along the way " * 20


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text(TEXT)
    (tmp_path / "spec.yaml").write_text(SPEC)
    return Path("spec.yaml")


def test_tokens_are_those_of_gpt2(call: Call) -> None:
    text = "Hello, w\u00f6rld \U0001f600\n"
    shown = json.loads(call("data", "tokens", "gpt2", text, "--json").stdout)
    assert [entry["id"] for entry in shown["tokens"]] == [15496, 11, 266, 30570, 335, 30325, 222, 198]
    assert bytes.fromhex("".join(entry["bytes"] for entry in shown["tokens"])).decode() == shown["decoded"] == text
    table = call("data", "tokens", "gpt2", text).stdout
    assert "15496  Hello" in table
    assert r"·\xf0\x9f\x98" in table
    assert "8 tokens for 15 characters, 2.38 bytes per token" in table


def test_text_that_a_tokenizer_changes_is_named(spec: Path, call: Call) -> None:
    assert not call("data", "tokens", spec, "every unheard effort").stderr
    result = call("data", "tokens", spec, "every unheard effort", "--set", "tokenizer.fallback=unknown")
    assert "the tokens are decoded to another text" in result.stderr
    assert call("data", "tokens", spec, "", code=2).stderr.startswith("error: the text is empty")


def test_tokens_of_a_run_are_those_of_its_tokenizer(spec: Path, call: Call) -> None:
    run = gptkit.train(spec, "run", progress=False)
    shown = json.loads(call("data", "tokens", "run", "one step", "--json").stdout)["tokens"]
    assert [entry["id"] for entry in shown] == run.tokenizer.encode("one step")
    assert "omit --set" in call("data", "tokens", "run", "one", "--set", "tokenizer=char", code=2).stderr


@pytest.mark.parametrize("overrides", [[], ["data.windows=random"], ["data.windows=ordered", "data.shuffle=true"]])
def test_windows_are_those_that_a_training_reads(
    spec: Path, call: Call, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    original = TrainingStep.__call__

    def recording(self: TrainingStep, batch: Any, *arguments: Any) -> Any:
        seen.append(batch)
        return original(self, batch, *arguments)

    monkeypatch.setattr(TrainingStep, "__call__", recording)
    gptkit.train(spec, "run", overrides, progress=False)
    options = [word for each in overrides for word in ("--set", each)]
    for step, batch in enumerate(seen, 1):
        shown = json.loads(call("data", "windows", spec, "--step", str(step), "--json", *options).stdout)
        assert [row["inputs"] for row in shown] == batch[0].tolist()
        assert [row["targets"] for row in shown] == batch[1].tolist()
    assert len(seen) == 3
    assert not Path("prepared").exists()


def test_windows_of_prepared_tokens_and_of_mixtures_are_shown(spec: Path, call: Call) -> None:
    plain = json.loads(call("data", "windows", spec, "--json").stdout)
    call("data", "prepare", spec, "--out", "tokens")
    named = "data={name: prepared, path: tokens, windows: ordered, stride: 1, shuffle: false}"
    assert json.loads(call("data", "windows", spec, "--set", named, "--json").stdout) == plain
    assert "every" in call("data", "windows", spec, "--set", named).stdout
    sources = ", ".join(f"{{name: {name}, data: {{name: text, path: corpus.txt}}, weight: 1}}" for name in ("one", "two"))
    mixture = f"data={{name: mixture, sources: [{sources}]}}"
    assert len(json.loads(call("data", "windows", spec, "--set", mixture, "--json").stdout)) == 2


def test_windows_are_shown_as_text(spec: Path, call: Call) -> None:
    out = call("data", "windows", spec, "-n", "1").stdout
    assert "data window 1 of 2, step 1" in out
    assert "inputs " in out
    assert "every·effort·" in out
    assert "·effort·moves" in out
    assert "data window 2" not in out
    short = call("data", "windows", spec, "--tokens", "2").stdout
    assert "… (4 tokens)" in short


def test_stages_are_refused(spec: Path, call: Call) -> None:
    stages = "training.stages=[{steps: 1, batch_size: 4}, {}]"
    assert "training.stages=[]" in call("data", "windows", spec, "--set", stages, code=2).stderr
