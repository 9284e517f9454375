"""The usage that `gptkit components KIND NAME` prints is valid, for every component."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gptkit.cli.main import app
from gptkit.core.registry import default_registry

COMPONENTS = [
    pytest.param(kind, name, id=f"{kind}-{name}")
    for kind in default_registry().kinds()
    for name, entry in default_registry().entries(kind).items()
    if entry.plugin.built_in
]
NEEDS_THE_USERS_FILE = {("tokenizer", "hugging-face"), ("data", "jsonl"), ("tokenizer", "tiktoken")}


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "GPTKIT_DEBUG": ""})


def section(output: str, title: str) -> str:
    result = re.search(rf"^{title}\n(.*?)(?=^\S|\Z)", output, re.DOTALL | re.MULTILINE)
    return textwrap.dedent(result[1]).strip() if result else ""


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_usage_is_accepted(kind: str, name: str, tmp_path: Path) -> None:
    shown = call("components", kind, name)
    assert shown.exit_code == 0, shown.output
    snippet, commands = (section(shown.output, title) for title in ("In a spec file", "Commands"))
    assert bool(snippet) != bool(commands)
    if commands:
        assert kind in ("drafter", "engine", "family", "format", "precision")
        for line in commands.splitlines():
            words = line.split()
            options = {word for word in words if word.startswith("--")}
            assert words[0] == "gptkit"
            assert options <= set(re.findall(r"--[a-z]+", call(words[1], "--help").output))
        assert name in commands
        return
    assert name in snippet
    file = tmp_path / "spec.yaml"
    # A spec file also requires a model.
    file.write_text(snippet + ("\n" if snippet.startswith("model:") else "\nmodel: {}\n"), encoding="utf-8")
    checked = call("check", str(file))
    if (kind, name) in NEEDS_THE_USERS_FILE and "…" in snippet:
        return
    assert checked.exit_code == 0, f"{snippet}\n{checked.output}"


@pytest.mark.parametrize(
    ("kind", "name", "snippet"),
    [
        ("activation", "silu", "model:\n  feedforward: {name: gated, activation: silu}"),
        ("activation", "gelu", "model:\n  feedforward: {name: gated, activation: gelu}"),
        ("rotary-scaling", "yarn", "model:\n  position:"),
        ("router", "top-k-softmax", "model:\n  feedforward:"),
    ],
)
def test_usage_is_that_of_the_usual_holder(kind: str, name: str, snippet: str) -> None:
    assert section(call("components", kind, name).output, "In a spec file").startswith(snippet)
