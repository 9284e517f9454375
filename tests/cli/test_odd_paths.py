"""Paths that begin with a dash, and links that lead to nothing."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from gptkit.core.atomic import write_text, writing
from gptkit.core.commands import command, quoted
from gptkit.core.errors import FileError
from tests.support.command_line import Call

SPEC = """tokenizer: byte
model: {context_length: 16, d_model: 16, n_layers: 1, attention: {name: multi-head, n_heads: 2}}
data: {name: text, path: text.txt}
"""


def test_paths_that_begin_with_a_dash_are_not_options_in_commands() -> None:
    assert command("gptkit train", Path("-a b.yaml"), "--init", Path("runs/a")) == "gptkit train './-a b.yaml' --init runs/a"
    assert quoted(Path("-a")) == "./-a"


def test_file_that_begins_with_a_dash_is_named_by_its_directory(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-my spec.yaml").write_text(SPEC)
    Path("text.txt").write_text("one two three " * 100)
    message = " ".join(call("check", "-my spec.yaml", code=2).stderr.replace("│", " ").split())
    assert "No such option: -m. For the file or directory, write: './-my spec.yaml'" in message
    assert call("check", "./-my spec.yaml").stdout.startswith("./-my spec.yaml: valid")
    note = call("data", "prepare", "--", "-my spec.yaml").stderr
    words = shlex.split(note[note.index("gptkit ") :])
    assert words == ["gptkit", "train", "./-my spec.yaml"]


@pytest.mark.parametrize("inside", ["", "deeper/file.txt"])
def test_link_to_nothing_is_named_when_it_is_written_through(tmp_path: Path, inside: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    path = tmp_path / "link" / inside
    with pytest.raises(FileError, match=r"link is a link to .*nothing, which does not exist") as caught, writing(path):
        path.mkdir(parents=True)
    assert caught.value.hint is not None
    assert "remove the link" in caught.value.hint
    (tmp_path / "nothing").mkdir()
    write_text(tmp_path / "link" / "file.txt", "x")


def test_experiment_that_cannot_be_written_is_reported_with_the_remedy(call: Call, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one two three " * 100)
    (tmp_path / "a.yaml").write_text(SPEC)
    (tmp_path / "experiments").symlink_to("nothing")
    rates = "training.optimizer.learning_rate=1e-4..1e-1:log"
    options = ["--set", "training.steps=1", "-o", str(tmp_path / "experiments/a")]
    for words in (["search", "--range", rates], ["compare", "--vary", "model.norm=rms,layer"]):
        message = call(words[0], str(tmp_path / "a.yaml"), *words[1:], *options, code=2).stderr
        assert "which does not exist" in message
        assert "hint: " in message


@pytest.mark.parametrize(
    "name", ["\N{LATIN SMALL LETTER E WITH ACUTE}" * 200, "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 200, "a" * 200]
)
def test_long_name_of_a_spec_is_cut_to_the_name_of_a_directory(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(f"name: {name}\n{SPEC}", encoding="utf-8")
    Path("text.txt").write_text("one two three " * 100)
    call("data", "prepare", "a.yaml")
    call("train", "a.yaml", "--set", "training.steps=1", "-q")
    [run] = Path("runs").iterdir()
    [tokens] = Path("prepared").iterdir()
    assert name.startswith(run.name)
    assert len(run.name.encode()) <= 200
    assert len(tokens.name.encode()) <= 220


def test_spec_of_the_note_after_a_preparation_reads_the_tokens(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("specs", "else where: #1"):
        (tmp_path / name).mkdir()
    spec = tmp_path / "specs/a.yaml"
    spec.write_text(SPEC)
    (tmp_path / "specs/text.txt").write_text("one two three " * 100)
    monkeypatch.chdir(tmp_path / "else where: #1")
    note = call("data", "prepare", spec, "--out", "tokens").stderr
    data = note[note.index("data: ") : note.index(" in a spec")]
    spec.write_text(SPEC.rpartition("data:")[0] + data)
    call("train", spec, "run", "--set", "training.steps=1", "-q")
