"""Rejection of sizes that cannot fit before allocation, and defaults of empty sections."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import SPEC, Call


@pytest.mark.parametrize(
    ("command", "override", "message"),
    [
        (["show", "mini.yaml"], "model.d_model=1000000000", "a model of width 1,000,000,000 with 1 layers"),
        (["train", "mini.yaml", "run"], "model.d_model=1000000000", "2 data windows of 16 tokens at a time needs about"),
        (["show", "mini.yaml"], "model.n_layers=1000000", "model.n_layers"),
        (["train", "mini.yaml", "run"], "model.n_layers=1000000", "model.n_layers"),
        (["train", "mini.yaml", "run"], "model.d_model=200000", "training a model of"),
    ],
)
def test_model_that_cannot_fit_is_rejected(
    call: Call, project: Path, command: list[str], override: str, message: str
) -> None:
    assert message in call(*command, "--set", override, code=2).stderr
    assert not Path("run/checkpoints").exists()


def test_batch_that_cannot_fit_is_rejected(call: Call, project: Path) -> None:
    message = call("train", "mini.yaml", "run", "-q", "--set", "training.batch_size=100000000000", code=2).stderr
    assert "training.batch_size: a step of 100,000,000,000 data windows of 16 tokens at a time needs about" in message
    assert "free" in message
    assert not Path("run").exists()


def test_batch_whose_activations_do_not_fit_is_rejected(call: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its token ids and the inputs of its blocks fit, so that only a plan of the step shows it."""

    def memory(free: int) -> None:
        for module in ("gptkit.model.plan", "gptkit.runs.sizes"):
            monkeypatch.setattr(f"{module}.available_memory", lambda device: free)

    command = ("train", "mini.yaml", "run", "-q", "--set", "training.batch_size=4096", "--set", "training.steps=1")
    memory(60_000_000)
    message = call(*command, code=2).stderr
    assert "training.batch_size: a step of 4,096 data windows of 16 tokens at a time needs about" in message
    assert "60 MB free" in message
    assert not Path("run").exists()
    memory(2_000_000_000)
    call(*command)


def test_empty_section_has_its_defaults(call: Call, project: Path) -> None:
    head = SPEC.partition("training:")[0]
    Path("empty.yaml").write_text(head + "training:\n  # steps: 5\nsampler: []\n")
    assert "steps: 1000" in call("show", "empty.yaml", "--resolved").stdout
    Path("empty.yaml").write_text(SPEC.replace("  attention: {name: multi-head, n_heads: 2}", "  attention:"))
    call("check", "empty.yaml")


def test_json_array_given_as_json_lines_is_reported(call: Call, project: Path) -> None:
    Path("corpus.jsonl").write_text('[{"text": "the cat"},\n {"text": "sat"}]\n')
    message = call("train", "mini.yaml", "run", "--set", "data={name: jsonl, path: corpus.jsonl}", code=2).stderr
    assert "corpus.jsonl:1: a JSON array" in message
    assert "jq -c" in message


def test_more_texts_than_memory_holds(call: Call, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--count" in call("generate", run, "x", "--count", "99999999999", code=2).stderr
    monkeypatch.setattr("gptkit.model.plan.available_memory", lambda device: 1_000_000)
    message = call("generate", run, "x", "--count", "5000", code=2).stderr
    assert "the key/value cache of 5,000 texts with 80,000 tokens in total needs about" in message
    assert "Lower --count" in message
    assert call("generate", run, "x", "--count", "2", "-n", "1").stdout.count("x") >= 2
