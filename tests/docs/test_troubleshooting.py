"""docs/troubleshooting.md: every message of its tables is provoked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.command_line import Call, caller, write_project

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
MESSAGES = re.findall(r"^\| `(.+?)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
ABSENT = "mps" if torch.cuda.is_available() else "cuda"
PROVOKED: dict[str, list[str]] = {
    "file not found; did you mean": ["check", "mimi.yaml"],
    "not valid YAML": ["check", "tabs.yaml"],
    "tags are refused": ["check", "tags.yaml"],
    "unknown key": ["check", "mini.yaml", "-s", "model.blok=1"],
    "unknown norm": ["check", "mini.yaml", "-s", "model.norm=rmss"],
    "must be at least": ["check", "mini.yaml", "-s", "training.batch_size=0"],
    "d_model": ["check", "mini.yaml", "-s", "model.attention.n_heads=3"],
    "position … cannot use": ["check", "mini.yaml", "-s", "model.attention.d_head=5"],
    "which attention": ["check", "mini.yaml", "-s", "model.position=shaw", "-s", "model.attention={name: simple}"],
    "… is not installed": ["check", "mini.yaml", "-s", "requires=[gptkit-absent>=1]"],
    "file or directory not found": ["train", "mini.yaml", "runs/b", "-s", "data.path=none.txt"],
    "the training split": ["train", "mini.yaml", "runs/b", "-s", "data.path=short.txt"],
    "byte … is not UTF-8": ["train", "mini.yaml", "runs/b", "-s", "data.path=latin.txt"],
    "not JSON": ["train", "mini.yaml", "runs/b", "-s", "data={name: jsonl, path: plain.jsonl}"],
    "no field": ["train", "mini.yaml", "runs/b", "-s", "data={name: jsonl, path: other.jsonl}"],
    "field …": ["train", "mini.yaml", "runs/b", "-s", "data={name: jsonl, path: bad.jsonl}"],
    "training.device": ["train", "mini.yaml", "runs/b", "-s", f"training.device={ABSENT}"],
    "training a model": ["train", "mini.yaml", "runs/b", "-s", "model.d_model=200000"],
    "the gradients": ["train", "mini.yaml", "runs/b", "-s", "training.optimizer.learning_rate=1e30"],
    "the warmup of": ["train", "mini.yaml", "runs/b", "-s", "data.path=none.txt"],
    "already holds": ["train", "mini.yaml", "runs/a"],
    "was started with another spec": ["train", "--resume", "runs/a", "-s", "model.d_model=32"],
    "does not fit the model": ["train", "mini.yaml", "runs/b", "--init", "runs/a", "-s", "model.d_model=32"],
    "run not found": ["generate", "runs/none", "x"],
    "is a spec file": ["generate", "mini.yaml", "x"],
    "has no checkpoint": ["generate", "runs/a", "x", "--step", "77"],
    "is damaged": ["generate", "runs/damaged", "x"],
    "has no chat template": ["chat", "runs/a"],
    "unknown sampler": ["generate", "runs/a", "x", "--sampler", "nope"],
    "is not a model": ["import", "mini.yaml", "runs/b"],
    "was not written by": ["docs", "build", "--out", "."],
}
"""A command for the message that begins so."""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a directory with two runs, one of them damaged, and with faulty files."""
    path = tmp_path_factory.mktemp("troubles")
    write_project(path)
    (path / "tabs.yaml").write_text("model:\n\td_model: 3\n")
    (path / "tags.yaml").write_text("model: !!python/object:os.system {}\n")
    (path / "short.txt").write_text("ab")
    (path / "latin.txt").write_bytes("é".encode("latin-1") * 9)
    (path / "plain.jsonl").write_text("plain text\n")
    (path / "other.jsonl").write_text('{"content": "a text"}\n')
    (path / "bad.jsonl").write_text('{"text": 1}\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        call = caller()
        for run in ("runs/a", "runs/damaged"):
            call("train", "mini.yaml", run, "--quiet")
        (weights,) = Path("runs/damaged/checkpoints").rglob("model.safetensors")
        weights.write_bytes(b"cut")
        yield path


@pytest.fixture
def call(directory: Path) -> Call:
    return caller()


def test_every_message_of_the_page_has_its_command() -> None:
    assert len(MESSAGES) > 20
    assert len(PROVOKED) == len(MESSAGES)
    for begin in PROVOKED:
        assert sum(message.startswith(begin) for message in MESSAGES) == 1, begin


@pytest.mark.parametrize("message", MESSAGES)
def test_message_is_printed(message: str, call: Call) -> None:
    (command,) = [command for begin, command in PROVOKED.items() if message.startswith(begin)]
    if command[0] == "docs":
        pytest.importorskip("mkdocstrings", reason="the extra `docs` is not installed")
    is_warning = message.startswith("has no chat template")
    result = call(*command, code=0 if is_warning else 2, input="", env={"COLUMNS": "1000"})
    pattern = ".+?".join(re.escape(part) for part in message.split("…"))
    assert re.search(pattern, result.stderr.replace("'", "").replace("\n", " ") + result.stderr), result.stderr
