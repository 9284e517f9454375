"""A small spec file with its corpus, for tests that call the command line."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from gptkit.cli.main import app

SPEC = """\
gptkit: 1
name: mini
tokenizer: byte
model:
  context_length: 16
  d_model: 16
  n_layers: 1
  attention: {name: multi-head, n_heads: 2}
data: {name: text, path: corpus.txt}
training:
  steps: 3
  batch_size: 2
  log_every: 1
  evaluate_batches: 1
  sample_tokens: 8
  sample_prompt: the
  device: cpu
"""
Call = Callable[..., Any]


def write_project(directory: Path) -> None:
    """A spec and its corpus."""
    words = random.Random(0).choices(["the", "cat", "sat", "on", "a", "mat"], k=800)
    (directory / "mini.yaml").write_text(SPEC, encoding="utf-8")
    (directory / "corpus.txt").write_text(" ".join(words), encoding="utf-8")


def caller() -> Call:
    """Return a function that calls the command line and checks the exit code; results have exit_code, stdout and stderr."""
    runner = CliRunner()

    def invoke(*arguments: str | Path, code: int = 0, **options: Any) -> Any:
        options.setdefault("env", {})
        options["env"] = {"COLUMNS": "80", "NO_COLOR": None, "GPTKIT_DEBUG": None, **options["env"]}
        result = runner.invoke(app, [str(argument) for argument in arguments], **options)
        assert result.exit_code == code, f"{result.exit_code}\n{result.stdout}\n{result.stderr}\n{result.exception!r}"
        return result

    return invoke
