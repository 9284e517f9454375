"""`gptkit generate --trace`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import Call


def test_trace_in_the_terminal(call: Call, run: Path) -> None:
    arguments = ("--seed", "1", "-n", "3", "--sampler", "temperature=0.8", "--sampler", "top-k=4")
    plain = call("generate", run, "the", *arguments)
    result = call("generate", run, "--trace", "the", *arguments)
    assert result.stdout.startswith(plain.stdout)
    lines = result.stdout.removeprefix(plain.stdout).splitlines()
    assert lines[:2] == ["", "Trace"]
    assert sum(line.strip().startswith("top-k k 4") for line in lines) == 3
    assert all(len(line) <= 80 for line in lines)
    assert "257 → 4" in result.stdout


def test_trace_in_a_file_and_in_json(call: Call, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "why.json"
    result = call("generate", run, "the", "a", "-n", "3", "--trace", path, "--json")
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["model"] == "mini"
    assert [text["tokens"] for text in report["texts"]] == [each["trace"]["tokens"] for each in json.loads(result.stdout)]
    call("generate", run, "the", "-n", "3", f"--trace={tmp_path / 'why.html'}")
    assert (tmp_path / "why.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("name", ["why.txt", "mine.html", "missing/why.html"])
def test_trace_to_an_unusable_file(call: Call, run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.html").write_text("mine")
    result = call("generate", run, "the", f"--trace={tmp_path / name}", code=2)
    assert result.stdout == ""
    assert (tmp_path / "mine.html").read_text() == "mine"


@pytest.mark.parametrize("name", ["foo.txt", "some/Foo.PNG", "foo.htm"])
def test_file_with_another_suffix_is_not_a_prompt(call: Call, run: Path, name: str) -> None:
    result = call("generate", run, "the", "--trace", name, code=2)
    assert f"{name}: a report is written as .html or .json" in result.stderr
    assert f"As in: {Path(name).stem}.html" in result.stderr


@pytest.mark.parametrize("prompt", ["Return.", "a file.txt", "3.14", "the"])
def test_prompt_after_trace_is_not_a_file(call: Call, run: Path, prompt: str) -> None:
    assert call("generate", run, "--trace", prompt, "-n", "1", "--seed", "1").stdout.startswith(prompt)
