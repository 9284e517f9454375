"""`gptkit inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gptkit
from tests.support.command_line import Call


def test_summary_fits_the_terminal(call: Call, run: Path) -> None:
    result = call("inspect", run, "--text", "the cat sat")
    assert "11 tokens" in result.stdout
    assert "bits per byte" in result.stdout
    assert "embedding" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    assert result.stderr == ""


def test_json_and_page(call: Call, run: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat sat", encoding="utf-8")
    page = tmp_path / "page.html"
    result = call("inspect", run, "--file", tmp_path / "text.txt", "--json", "-o", page, "--tokens", "7", "--layers", "0")
    data = json.loads(result.stdout)
    view = gptkit.load(run).inspect("the cat")
    assert data == json.loads(json.dumps(view.as_dict()))
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert f"written to {page}" in result.stderr.replace("\n", "")


def test_text_from_stdin(call: Call, run: Path) -> None:
    assert "7 tokens" in call("inspect", run, "-f", "-", input="the cat").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "needs one text"),
        (("--text", "a", "--file", "b"), "needs one text"),
        (("--text", ""), "the text is empty"),
        (("--text", "a" * 17), "has 17 tokens, and the model's context is 16"),
        (("--text", "a", "-o", "page.txt"), "written as .html or .json"),
        (("--text", "a", "-o", "missing/page.html"), "does not exist"),
        (("--text", "a", "-o", "mine.html"), "was not written by gptkit"),
        (("--text", "a", "--layers", "x"), "is not a layer"),
        (("--text", "a", "--layers", "3", "--json"), "no layer 3"),
        (("--file", "missing.txt"), "missing.txt"),
    ],
)
def test_wrong_input(
    call: Call, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.html").write_text("mine")
    result = call("inspect", run, *arguments, code=2)
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert Path("mine.html").read_text() == "mine"


def test_missing_run(call: Call, tmp_path: Path) -> None:
    assert "error" in call("inspect", tmp_path / "nothing", "--text", "a", code=2).stderr
