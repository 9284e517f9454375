"""Runs that are moved, alone or together with their specs and corpora."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

import gptkit
from gptkit.core.errors import DataError
from gptkit.runs.corpus import prepare_corpus, prepared_directory

SPEC = {
    "gptkit": 1,
    "name": "mine",
    "tokenizer": "byte",
    "model": {"context_length": 16, "d_model": 16, "n_layers": 1, "attention": {"name": "multi-head", "n_heads": 2}},
    "data": {"name": "text", "path": "corpus.txt"},
    "training": {"steps": 2, "batch_size": 2, "schedule": "constant", "evaluate_every": None},
}


def _project(directory: Path) -> Path:
    directory.mkdir(parents=True)
    generator = random.Random(0)
    words = " ".join(generator.choice(["sun", "moon", "star"]) for _ in range(600))
    (directory / "corpus.txt").write_text(words)
    (directory / "mine.json").write_text(json.dumps(SPEC))
    return directory


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("tokens", ["kept", "removed"])
def test_run_moved_with_its_spec_continues_and_is_evaluated(tmp_path: Path, prepared: bool, tokens: str) -> None:
    project = _project(tmp_path / "first")
    if prepared:
        opened = gptkit.open_spec(project / "mine.json")
        prepare_corpus(opened, prepared_directory(opened), workers=1)
    loss = gptkit.train(project / "mine.json", project / "runs/mine", progress=False).evaluate()["loss"]
    moved = tmp_path / "second" / "deeper"
    moved.parent.mkdir()
    project.rename(moved)
    if tokens == "removed":
        shutil.rmtree(moved / "runs/mine/data")
    assert gptkit.load(moved / "runs/mine").evaluate()["loss"] == loss
    run = gptkit.resume(moved / "runs/mine", ["training.steps=3"], progress=False)
    assert run.step == 3
    assert gptkit.load(moved / "runs/mine").provenance["base"] == str(moved)


def test_run_moved_without_its_corpus_names_the_command_that_continues_it(tmp_path: Path) -> None:
    project = _project(tmp_path / "first")
    gptkit.train(project / "mine.json", project / "runs/mine", progress=False)
    (project / "runs/mine").rename(tmp_path / "alone")
    project.rename(tmp_path / "second")
    shutil.rmtree(tmp_path / "alone/data")
    with pytest.raises(DataError) as caught:
        gptkit.resume(tmp_path / "alone", ["training.steps=3"], progress=False)
    assert caught.value.hint is not None
    assert f"gptkit train --resume SPEC {tmp_path / 'alone'}" in caught.value.hint
    run = gptkit.train(tmp_path / "second/mine.json", tmp_path / "alone", ["training.steps=3"], resume=True, progress=False)
    assert run.step == 3


def test_run_copied_beside_its_spec_uses_the_recorded_directory(tmp_path: Path) -> None:
    project = _project(tmp_path / "first")
    gptkit.train(project / "mine.json", project / "runs/mine", progress=False)
    shutil.copytree(project, tmp_path / "second")
    assert gptkit.load(tmp_path / "second/runs/mine").provenance["base"] == str(project)
