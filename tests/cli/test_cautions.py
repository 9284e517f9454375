"""Warnings about valid but suspicious specs, and errors of the environment with field and remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.command_line import SPEC, Call


def test_warmup_longer_than_the_training_prints_a_warning(call: Call, project: Path) -> None:
    long = ["--set", "training.schedule={name: cosine, warmup_steps: 300}"]
    for command in (["check", "mini.yaml"], ["train", "mini.yaml", "run", "-q"]):
        message = call(*command, *long).stderr
        assert "training.schedule.warmup_steps: the warmup of 300 steps is longer than the training of 3" in message
        assert "1% of its peak" in message
    assert "warmup" not in call("check", "mini.yaml", "--set", "training.schedule.warmup_steps=2").stderr


def test_validation_of_few_targets_prints_a_warning(call: Call, project: Path) -> None:
    def message(*options: str) -> str:
        words = [word for option in options for word in ("--set", option)]
        return str(call("train", "mini.yaml", "run", "-q", "--overwrite", *words).stderr)

    Path("short.txt").write_text("the c" * 40)
    assert message("data.path=short.txt").count("data.validation: the validation split has only 2") == 1
    assert "says little" not in message("data.path=short.txt", "data.validation=0.5")
    assert "says little" not in message("data.path=short.txt", "data.validation=0")
    assert "says little" not in message()
    assert "says little" in message("model.context_length=512")  # longer than the split
    assert "says little" not in message("model.context_length=512", "training.window=16")


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.csv", "corpus.json"])
def test_records_read_as_text_print_a_warning(call: Call, project: Path, name: str) -> None:
    message = call("check", "mini.yaml", "--set", f"data.path={name}").stderr
    assert f"data.path: {name} is read as plain text" in message
    assert "data.name to jsonl" in message
    assert "data.path" not in call("check", "mini.yaml", "--set", f"data={{name: jsonl, path: {name}}}").stderr


def test_corpus_with_a_likely_separator_is_warned_of(call: Call, project: Path) -> None:
    Path("corpus.txt").write_text("the cat sat\n<|endoftext|>\non a mat " * 50)
    message = call("train", "mini.yaml", "run", "-q").stderr
    assert message.count("corpus.txt contains <|endoftext|>, which is read as ordinary characters") == 1
    assert "data.separator" in message
    message = call("train", "mini.yaml", "other", "-q", "--set", "data.separator=<|endoftext|>").stderr
    assert "ordinary characters" not in message


def test_command_of_a_group_prints_a_warning_once(call: Call, project: Path) -> None:
    corpus = project / "texts"
    corpus.mkdir()
    for name in ("a.txt", "b.txt", "c.csv"):
        (corpus / name).write_text("the cat sat on a mat\n" * 50)
    message = call("data", "prepare", "mini.yaml", "--workers", "1", "-q", "--set", "data.path=texts").stderr
    assert message.count("1 file is ignored, whose names data 'text' does not read: 1 .csv") == 1


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("data.path=~nobodyhere/corpus.txt", "data.path"),
        ("data={name: jsonl, path: ~nobodyhere/corpus.jsonl}", "data.path"),
        ("tokenizer={name: hugging-face, path: ~nobodyhere}", "tokenizer.path"),
        ("tokenizer={name: tiktoken, encoding: gpt2, file: ~nobodyhere/x}", "tokenizer.file"),
        ("training.init_from.path=~nobodyhere/run", "training.init_from"),
    ],
)
def test_missing_home_directory_is_reported(call: Call, project: Path, override: str, field: str) -> None:
    message = call("train", "mini.yaml", "run", "--set", override, code=2).stderr
    assert f"{field}: ~nobodyhere" in message
    assert "no home directory for ~nobodyhere" in message


def test_compile_without_a_compiler_is_reported(call: Call, project: Path) -> None:
    import torch._inductor.config as inductor

    # Not monkeypatch: undoing it deletes the setting, and every later compilation fails.
    with inductor.patch({"cpp.cxx": (None, "/nonexistent/g++")}):
        message = call("train", "mini.yaml", "run", "-q", "--set", "training.compile=true", code=2).stderr
    assert "training.compile: torch.compile failed" in message
    assert "Install a C++ compiler" in message


@pytest.mark.parametrize("allocate", [lambda: torch.empty(10**16), lambda: np.empty(10**16)])
def test_step_that_does_not_fit_in_memory_is_reported(
    call: Call, project: Path, monkeypatch: pytest.MonkeyPatch, allocate: Any
) -> None:
    from gptkit.training.step import TrainingStep

    monkeypatch.setattr(TrainingStep, "__call__", lambda *_: allocate())
    message = call("train", "mini.yaml", "run", "-q", code=2).stderr
    assert "training.batch_size: a step with 2 windows at a time does not fit in memory" in message
    assert "training.grad_accumulation" in message


def test_edited_spec_is_compared_when_resumed(call: Call, project: Path) -> None:
    call("train", "mini.yaml", "run", "-q")
    file = Path("run/spec.yaml")
    written = file.read_text()
    file.write_text(written.replace("d_model: 16", "d_model: 32"))
    message = call("train", "--resume", "run", "-q", code=2).stderr
    assert "model.d_model: 16 in the run, 32 requested" in message
    file.write_text(written.replace("learning_rate: 0.001", "learning_rate: 0.01"))
    assert "learning_rate" in call("train", "--resume", "run", "-q", code=2).stderr
    file.write_text(written.replace("steps: 3\n", "steps: 5\n"))
    message = call("train", "--resume", "run", "-q").stderr
    assert "was edited since the training; changes used: training.steps: 3 → 5" in message
    assert "continues with changed values" not in message
    assert "edited" not in call("train", "--resume", "run", "-q").stderr


def test_values_that_a_resumed_run_changes_are_named(call: Call, project: Path) -> None:
    warmup = ("--set", "training.schedule.warmup_steps=1")
    call("train", "mini.yaml", "run", "-q", *warmup, "--set", "training.steps=2")
    changes = (*warmup, "--set", "training.steps=4", "--set", "training.checkpoint_every=3", "--set", "name=other")
    (line,) = call("train", "mini.yaml", "run", "--resume", "-q", *changes).stderr.splitlines()
    changed = "training.steps: 2 → 4; training.checkpoint_every: 200 → 3"
    assert line == f"warning: run continues with changed values: {changed}"
    assert call("train", "mini.yaml", "run", "--resume", "-q", *changes).stderr == ""


@pytest.mark.parametrize(
    ("tokenizer", "measured"),
    [("{name: word, fallback: unknown, max_vocab: 6}", False), ("{name: word}", True), ("byte", True)],
)
def test_bits_per_byte_require_a_lossless_tokenizer(call: Call, project: Path, tokenizer: str, measured: bool) -> None:
    Path("words.yaml").write_text(SPEC.replace("tokenizer: byte", f"tokenizer: {tokenizer}"))
    call("train", "words.yaml", "run", "-q")
    Path("other.txt").write_text(" ".join(Path("corpus.txt").read_text().split()[:50]))
    for options in ([], ["--data", "other.txt"]):
        data = json.loads(call("evaluate", "run", *options, "--json").stdout)
        assert (data["bits_per_byte"] is not None) == measured
        assert ("no_bits_per_byte" in data) != measured
        assert ("loses part of the text" in call("evaluate", "run", *options).stdout) != measured
