"""A failed start does not block the next one, and removes no files of the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.core.errors import CheckpointError, DataError, GptkitError, RequirementError
from gptkit.core.registry import Registry
from gptkit.runs.directory import RunDirectory
from gptkit.runs.run import Run
from tests.support import fake_plugins

torch.set_num_threads(1)

SPEC: dict[str, Any] = {
    "name": "try",
    "tokenizer": "byte",
    "model": {"context_length": 8, "d_model": 8, "n_layers": 1, "attention": {"name": "multi-head", "n_heads": 2}},
    "data": {"name": "text", "path": "corpus.txt"},
    "training": {"steps": 1, "batch_size": 2, "evaluate_batches": 1, "sample_tokens": 0, "device": "cpu"},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("the cat sat on a mat. " * 200)


def train(*overrides: str, directory: str | Path = "run", **options: Any) -> Run:
    return gptkit.train(SPEC, directory, overrides, progress=False, **options)


@pytest.mark.parametrize("resume", [False, True])
def test_corrected_spec_can_be_started_in_the_same_directory(resume: bool) -> None:
    with pytest.raises(DataError):
        train("data.path=missing.txt")
    Path("run/notes.txt").write_text("mine")
    assert train(resume=resume).finished
    assert gptkit.load("run").spec.data.path == ("corpus.txt",)  # type: ignore[attr-defined]
    assert Path("run/notes.txt").read_text() == "mine"


def test_failed_training_does_not_block_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("gptkit.runs.fit.Trainer.run", lambda self: failed())
        with pytest.raises(gptkit.TrainingError):
            train()
    assert Path("run/data").is_dir()
    assert Path("run/tokenizer").is_dir()
    assert train("tokenizer=char").finished
    assert gptkit.load("run").tokenizer.vocab_size < 20


def test_second_failure_reports_no_previous_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("gptkit.runs.fit.Trainer.run", lambda self: failed())
    for tokenizer in ("byte", "char"):
        with pytest.raises(gptkit.TrainingError):
            train(f"tokenizer={tokenizer}")
        Path(f"run/tokenizer/{tokenizer}.txt").write_text("mine")
    assert "restored" not in caplog.text
    assert RunDirectory("run").read_spec().tokenizer.name == "byte"
    assert not [path for path in Path("run").iterdir() if path.name.startswith(".gptkit")]
    assert Path("run/tokenizer/byte.txt").read_text() == "mine"


def failed() -> None:
    raise gptkit.TrainingError("the gradients are not finite")


@pytest.mark.parametrize("name", ["data", "tokenizer", "checkpoints"])
def test_files_added_by_the_user_are_not_removed(name: str) -> None:
    with pytest.raises(DataError):
        train("data.path=missing.txt", "tokenizer=char")
    Path("run", name).mkdir()
    Path("run", name, "precious.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=f"contains {name}, which a run would replace"):
        train()
    assert Path("run", name, "precious.txt").read_text() == "mine"


def test_user_spec_is_not_treated_as_a_failed_start() -> None:
    Path("run").mkdir()
    Path("run/spec.yaml").write_text("name: mine\n")
    Path("run/provenance.json").write_text('{"spec_sha256": "x"}')
    for option in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(CheckpointError, match=r"run is not a run, but contains spec\.yaml, provenance\.json, which"):
            train(**option)
    assert Path("run/spec.yaml").read_text() == "name: mine\n"


def test_run_with_a_checkpoint_is_kept_and_remedies_are_listed() -> None:
    train()
    with pytest.raises(CheckpointError, match="already holds a run") as caught:
        train()
    assert "resume=True" in str(caught.value)
    assert "overwrite=True" in str(caught.value)
    with pytest.raises(CheckpointError, match="another spec") as caught:
        train("model.d_model=16", "data.path=" + "x" * 99, resume=True)
    assert "--overwrite (overwrite=True)" in str(caught.value)
    assert "model.d_model: 8 in the run, 16 requested; the weights belong to it" in caught.value.message
    assert max(map(len, caught.value.message.splitlines())) < 120


def test_file_at_the_path_of_the_run_directory_is_reported() -> None:
    for directory in ("corpus.txt", "corpus.txt/run"):
        with pytest.raises(CheckpointError, match=r"corpus\.txt is a file, but a run requires a directory"):
            train(directory=directory)
    assert Path("corpus.txt").read_text().startswith("the cat")


def test_broken_or_disabled_plugin_is_not_reported_as_missing() -> None:
    train()
    run_directory = RunDirectory("run")
    noted = json.loads(run_directory.provenance.read_text())
    run_directory.provenance.write_text(json.dumps({**noted, "components": {"norm max": "gptkit-max==1.0"}}))

    def raises() -> Any:
        raise ImportError("no module named 'y'")

    def require(**options: Any) -> str:
        plugin = fake_plugins.plugin("Gptkit.Max", load=raises, version="1.1")
        with pytest.raises(RequirementError) as caught:
            run_directory.require_components(fake_plugins.registry(plugin, **options))
        return str(caught.value)

    broken = require()
    assert "norm max from Gptkit.Max==1.1, which is installed but broken" in broken
    assert "no module named 'y'" in broken
    assert "not installed" not in broken
    assert "disabled" in require(disabled=["gptkit-max"])
    with pytest.raises(RequirementError, match="not installed"):
        run_directory.require_components(Registry([]))


def test_prompts_must_be_a_list_of_texts() -> None:
    run = train()
    with pytest.raises(GptkitError, match=r"a prompt is a text, not a list\n.*gptkit\.generate"):
        run.generate(["a", "b"])  # type: ignore[arg-type]


def test_external_model_in_place_of_a_run_has_the_command_that_imports_it(tmp_path: Path) -> None:
    (tmp_path / "my model").mkdir()
    (tmp_path / "my model" / "config.json").write_text("{}")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    for name, shown in (("my model", "'{}/my model'"), ("x.gguf", "{}/x.gguf")):
        with pytest.raises(CheckpointError) as caught:
            gptkit.load(tmp_path / name)
        assert f"gptkit import {shown.format(tmp_path)} RUN" in str(caught.value.hint)
