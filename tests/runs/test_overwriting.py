"""Overwriting keeps the previous run until the new one has a checkpoint, and all user files."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import shutil
import signal
import stat
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.core.errors import CheckpointError, DataError, FileError, GptkitError, SpecError, TrainingError
from gptkit.kinds.callback import Callback
from gptkit.runs.directory import RunDirectory
from gptkit.runs.importing import convert_model
from gptkit.runs.placing import Placement
from gptkit.runs.run import Run

torch.set_num_threads(1)

SPEC: dict[str, Any] = {
    "name": "try",
    "tokenizer": "byte",
    "model": {"context_length": 8, "d_model": 8, "n_layers": 1, "attention": {"name": "multi-head", "n_heads": 2}},
    "data": {"name": "text", "path": "corpus.txt"},
    "training": {
        "steps": 2,
        "batch_size": 2,
        "log_every": 1,
        "evaluate_batches": 1,
        "sample_tokens": 2,
        "device": "cpu",
        "trackers": ["csv"],
    },
}


def train(*overrides: str, directory: str | Path = "run", **options: Any) -> Run:
    return gptkit.train(SPEC, directory, overrides, progress=False, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("finished")
    (directory / "corpus.txt").write_text("the cat sat on a mat. " * 200)
    gptkit.train(SPEC, directory / "run", [f"data.path={directory}/corpus.txt"], progress=False)
    return directory / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a finished run in the current directory, with user files in every directory."""
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("the dog lay on a rug. " * 200)
    copy = Path(shutil.copytree(finished, "run"))
    for name in MINE:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("mine")
    return copy


MINE = (
    "notes.txt",
    "data/corpus.txt",
    "tokenizer/notes.txt",
    "checkpoints/best/model.safetensors",
    "checkpoints/step-00000002/notes.txt",
    ".hidden/x",
)


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def leftovers(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("*") if "gptkit-" in path.name and path.name != "gptkit-tokenizer.json"]


FAILURES: dict[str, tuple[list[str], type[GptkitError]]] = {
    "misspelled corpus": (["data.path=corpse.txt"], DataError),
    "missing device": (["training.device=mps"], TrainingError),
    "corpus shorter than a window": (["model.context_length=100000"], DataError),
    "model that does not fit": (["model.d_model=2000000"], GptkitError),
    "too small a vocabulary": (["model.vocab_size=10"], SpecError),
    "a table in the place of another file": (["training.trackers.0.file=notes.txt"], CheckpointError),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failed_overwrite_leaves_the_run_unchanged(run: Path, failure: str) -> None:
    overrides, error = FAILURES[failure]
    before, inodes = contents(run), {path: path.stat().st_ino for path in run.rglob("*")}
    with pytest.raises(error):
        train(*overrides, overwrite=True)
    assert contents(run) == before
    assert {path: path.stat().st_ino for path in run.rglob("*") if path.name != ".lock"}.items() <= inodes.items()


def test_overwriting_replaces_files_of_gptkit_only(run: Path) -> None:
    old = contents(run)
    train("training.steps=1", overwrite=True)
    new = contents(run)
    assert {name: new[name] for name in MINE} == dict.fromkeys(MINE, b"mine")
    assert gptkit.load(run).step == 1
    assert "checkpoints/step-00000002/model.safetensors" not in new
    assert new["data/train-00000.bin"] != old["data/train-00000.bin"]
    assert len(new["metrics.csv"].splitlines()) == 3
    assert not leftovers(run)


def test_file_of_the_user_where_the_new_run_would_write_is_kept(run: Path) -> None:
    (run / "tokenizer/ranks.tiktoken").write_text("mine")
    before = contents(run)
    with pytest.raises(CheckpointError, match=r"ranks\.tiktoken was not written by gptkit, and the run would replace it"):
        train("tokenizer={name: bpe, vocab_size: 260}", overwrite=True)
    assert contents(run) == before
    assert not leftovers(run)


class Watch(Callback):
    """Tracker that calls a function after a step."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def on_step(self, step: int) -> None:
        self._call()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, TrainingError("the loss is nan")])
def test_training_that_fails_before_its_first_checkpoint_restores_the_previous_run(
    run: Path, error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = contents(run)
    seen = []

    def fail() -> None:
        seen.append(contents(run))
        raise error

    with pytest.raises(error if isinstance(error, type) else TrainingError):
        train("model.d_model=16", overwrite=True, callbacks=[Watch(fail)])
    assert b"d_model: 16" in seen[0]["spec.yaml"]
    assert seen[0][".gptkit-previous/checkpoints/step-00000002/model.safetensors"]
    assert contents(run) == before
    assert "the previous run is restored" in caplog.text


def test_interrupt_before_the_first_step_restores_the_previous_run(run: Path) -> None:
    class Stop(Callback):
        def on_start(self, start: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    before = contents(run)
    with pytest.raises(KeyboardInterrupt):
        train(overwrite=True, callbacks=[Stop()])
    assert contents(run) == before


def test_the_previous_run_is_discarded_at_the_first_checkpoint_and_not_earlier(run: Path) -> None:
    kept = []
    train(
        "training.steps=4",
        "training.checkpoint_every=2",
        overwrite=True,
        callbacks=[Watch(lambda: kept.append((run / ".gptkit-previous").is_dir()))],
    )
    assert kept == [True, True, False, False]


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a matter of POSIX")
@pytest.mark.parametrize("saved", [False, True])
def test_killed_overwrite_without_a_checkpoint_is_undone_by_the_next_command(run: Path, saved: bool) -> None:
    before = contents(run)
    child = os.fork()
    if child == 0:
        kill = Watch(lambda: os.kill(os.getpid(), signal.SIGKILL))
        if saved:
            Placement.commit = lambda self: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        train("model.d_model=16", overwrite=True, callbacks=[] if saved else [kill])
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (run / ".gptkit-previous").is_dir()
    loaded = gptkit.load(run)
    assert loaded.spec.model.d_model == (16 if saved else 8)
    assert not leftovers(run)
    if not saved:
        assert contents(run) == before


class Killed(BaseException):
    """Simulated kill -9, without any cleanup."""


def killed_at(number: int, call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Call a function; from the given change of the file system on, every change raises. Return whether it was reached."""
    count = 0

    def counted(real: Any) -> Any:
        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            nonlocal count
            count += 1
            if count >= number:
                raise Killed
            return real(*arguments, **keywords)

        return wrapper

    with monkeypatch.context() as patch:
        for name in ("rename", "mkdir", "unlink", "rmdir"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        patch.setattr(shutil, "rmtree", counted(shutil.rmtree))
        try:
            call()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("imported", [False, True])
def test_killed_exchange_or_recovery_leaves_one_complete_run(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imported: bool
) -> None:
    """An import has a checkpoint as soon as it is complete, unlike a training run."""
    files = ["provenance.json", "spec.yaml", "tokenizer/gptkit-tokenizer.json", "tokenizer/more.json"]
    checkpoint = ["checkpoints/step-00000001/state.json", "checkpoints/step-00000001/model.safetensors"] if imported else []

    def prepared(name: str) -> tuple[Path, Placement]:
        run = Path(shutil.copytree(finished, tmp_path / name))
        (run / "data" / "corpus.txt").write_text("mine")
        placement = Placement(RunDirectory(run))
        new = placement.begin()
        for file in (*files, *checkpoint):
            (new / file).parent.mkdir(parents=True, exist_ok=True)
            (new / file).write_text("new")
        shutil.copy(finished / "spec.yaml", new)
        (new / "provenance.json").write_text(json.dumps({"spec_sha256": "x", "files": files}))
        return run, placement

    old = contents(finished) | {"data/corpus.txt": b"mine"}
    whole, placement = prepared("whole")
    placement.place(files)
    placement.commit()
    new = contents(whole)
    assert set(new) == {*files, *checkpoint, "data/corpus.txt"}
    for number in range(1, 200):
        run, placement = prepared(f"run-{number}")
        killed = killed_at(number, partial(placement.place, files), monkeypatch)
        # The recovery is killed too, one change later each time.
        for step in range(1, 200):
            if not killed_at(step, Placement(RunDirectory(run)).recover, monkeypatch):
                break
        assert contents(run) == (new if imported and not killed else old), f"killed at call {number}"
        assert not leftovers(run)
        if not killed:
            break
    assert 20 < number < 199


def test_directory_is_a_run_only_if_gptkit_created_it(run: Path, tmp_path: Path) -> None:
    def broken(name: str, change: Callable[[Path], Any]) -> Path:
        copy = Path(shutil.copytree(run, tmp_path / name))
        change(copy)
        return copy

    by_hand = broken("by-hand", lambda copy: (copy / "spec.yaml").write_text("name: mine\n"))
    alone = broken("alone", lambda copy: (copy / "provenance.json").unlink())
    for copy, why in ((by_hand, "does not begin with the line"), (alone, r"has no provenance\.json")):
        before = contents(copy)
        for options in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(CheckpointError, match="is not a run, but contains"):
                train(directory=copy, **options)  # type: ignore[arg-type]
        for call in (gptkit.load, gptkit.resume):
            with pytest.raises(CheckpointError, match=why):
                call(copy)
        assert contents(copy) == before
        assert not (copy / ".lock").exists() or (run / ".lock").exists()


def test_a_provenance_cannot_name_files_outside_of_its_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.txt").write_text("mine")
    (run / "link").symlink_to(tmp_path / "elsewhere")
    run_directory = RunDirectory(run)
    noted = json.loads(run_directory.provenance.read_text())
    outside = ["../precious.txt", str(tmp_path / "precious.txt"), "link/x.txt", "notes.txt/../../precious.txt", 3]
    run_directory.provenance.write_text(json.dumps({**noted, "files": [*noted["files"], *outside]}))
    assert {path.relative_to(run).parts[0] for path in run_directory.own_files()}.isdisjoint({"..", "link", "precious.txt"})
    train(overwrite=True)
    assert (tmp_path / "precious.txt").read_text() == "mine"
    assert (tmp_path / "elsewhere" / "x.txt").read_text() == "mine"


def test_link_of_the_user_is_not_followed(run: Path, tmp_path: Path) -> None:
    shutil.move(run / "data", tmp_path / "big-disk")
    (run / "data").symlink_to(tmp_path / "big-disk")
    before = contents(tmp_path / "big-disk")
    with pytest.raises(CheckpointError, match="data was not written by gptkit"):
        train(overwrite=True)
    assert contents(tmp_path / "big-disk") == before
    assert gptkit.load(run).step == 2


@pytest.mark.parametrize("name", ["samples.txt", "metrics.jsonl", "loss.png", "metrics.csv"])
def test_a_training_does_not_write_over_files_beside_an_imported_model(run: Path, name: str) -> None:
    run_directory = RunDirectory(run)
    noted = json.loads(run_directory.provenance.read_text())
    kept = [each for each in noted["files"] if each != name]
    run_directory.provenance.write_text(json.dumps({**noted, "files": kept}))
    (run / name).write_text("mine")
    before = contents(run)
    with pytest.raises(CheckpointError, match=rf"{name} was not written by gptkit"):
        gptkit.resume(run, ["training.steps=3"], progress=False)
    with pytest.raises(CheckpointError, match=rf"{name} was not written by gptkit"):
        train(overwrite=True)
    assert contents(run) == before


def test_a_run_without_a_list_of_its_files_is_overwritten_too(run: Path) -> None:
    run_directory = RunDirectory(run)
    noted = json.loads(run_directory.provenance.read_text())
    del noted["files"]
    run_directory.provenance.write_text(json.dumps(noted))
    (run / "metrics.csv").unlink()
    train("training.steps=1", overwrite=True)
    assert gptkit.load(run).step == 1
    assert {name: (run / name).read_text() for name in MINE} == dict.fromkeys(MINE, "mine")


def test_a_lock_file_of_another_program_is_not_written_to(run: Path) -> None:
    (run / ".lock").write_text("resolution = 1\n")
    with pytest.raises(CheckpointError, match=r"\.lock is not a lock file of gptkit"):
        train(overwrite=True)
    assert (run / ".lock").read_text() == "resolution = 1\n"


def test_evaluating_a_run_without_its_tokens_acquires_the_lock(run: Path) -> None:
    shutil.rmtree(run / "data")
    loaded = gptkit.load(run)
    with RunDirectory(run).lock(), pytest.raises(CheckpointError, match=r"another process .*is writing into"):
        loaded.evaluate()
    assert loaded.evaluate()["loss"] > 0


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_every_file_of_a_run_has_the_mode_of_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("the cat sat on a mat. " * 200)
    before = os.umask(0o022)
    try:
        train("tokenizer={name: bpe, vocab_size: 270}")
        gptkit.export_model("run", "exported")
    except GptkitError as error:
        assert "no family" in str(error)
    finally:
        os.umask(before)
    for path in [*Path("run").rglob("*"), *Path("exported").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


@pytest.mark.parametrize(
    "name",
    [
        "spec.yaml",
        "provenance.json",
        "tokenizer/gptkit-tokenizer.json",
        "checkpoints/step-00000002/state.json",
        "checkpoints/step-00000002/model.safetensors",
    ],
)
def test_unreadable_file_is_reported(run: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, run / name)
    with pytest.raises(FileError, match=rf"{name} cannot be read: Permission denied") as caught:
        gptkit.load(run)
    assert "remove" not in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_unreadable_tokens_are_reported_and_kept(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, run / "data" / "meta.json")
    before = (run / "data" / "train-00000.bin").stat().st_ino
    with pytest.raises(FileError, match=r"meta\.json cannot be read: Permission denied"):
        gptkit.load(run).evaluate()
    assert (run / "data" / "train-00000.bin").stat().st_ino == before


def refuse(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Make opening a file fail as without permission; root may read everything."""
    real, refused = io.open, path.resolve()

    def opened(file: Any, *arguments: Any, **keywords: Any) -> Any:
        if isinstance(file, (str, Path)) and Path(file).resolve() == refused:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return real(file, *arguments, **keywords)

    monkeypatch.setattr(io, "open", opened)


# -- imports ----------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path, run: Path) -> Path:
    """Export a llama with gptkit."""
    spec = {
        **SPEC,
        "model": {
            **SPEC["model"],
            "attention": {"name": "grouped-query", "n_heads": 2, "n_kv_heads": 1},
            "feedforward": {"name": "gated", "d_hidden": 8},
            "head": {"name": "linear", "tied": False},
        },
    }
    gptkit.train(spec, tmp_path / "llama-run", ["training.steps=1"], progress=False)
    random.seed(0)
    return gptkit.export_model(tmp_path / "llama-run", tmp_path / "llama", family="llama")


def test_import_over_a_run_replaces_files_of_gptkit_only(run: Path, source: Path) -> None:
    convert_model(source, run, tokenizer="byte", overwrite=True)
    assert gptkit.load(run).step == 0
    assert "metrics.jsonl" not in contents(run)
    assert {name: (run / name).read_text() for name in MINE} == dict.fromkeys(MINE, "mine")
    assert not leftovers(run)


def test_failed_import_leaves_the_run_unchanged(run: Path, source: Path) -> None:
    before = contents(run)

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_model(source, run, tokenizer="byte", overwrite=True, progress=fail)
    assert contents(run) == before


def test_import_into_a_running_training_is_rejected(run: Path, source: Path) -> None:
    before = contents(run)
    with RunDirectory(run).lock(), pytest.raises(CheckpointError, match=r"another process .*is writing into"):
        convert_model(source, run, tokenizer="byte", overwrite=True)
    assert contents(run) == before


def test_import_into_a_project_changes_no_files(tmp_path: Path, source: Path) -> None:
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "data" / "corpus.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(CheckpointError, match="is not a run, but contains data"):
            convert_model(source, project, tokenizer="byte", overwrite=overwrite)
    assert contents(project) == {"data/corpus.txt": b"mine"}


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"])
def test_export_does_not_replace_files(tmp_path: Path, source: Path, name: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / name).write_text("mine")
    with pytest.raises(GptkitError, match=r"already holds a model|which the export would replace"):
        gptkit.export_model(tmp_path / "llama-run", target)
    assert contents(target) == {name: b"mine"}
    with pytest.raises(GptkitError, match="is a run, which an export does not replace"):
        gptkit.export_model(tmp_path / "llama-run", tmp_path / "llama-run")


def test_failed_export_leaves_no_files(tmp_path: Path, source: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "README.md").write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        gptkit.export_model(tmp_path / "llama-run", tmp_path / "target", progress=fail)
    assert contents(tmp_path / "target") == {"README.md": b"mine"}


def test_unreadable_weights_to_import_are_reported(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, source / "model.safetensors")
    with pytest.raises(FileError, match=r"model\.safetensors cannot be read: Permission denied"):
        convert_model(source, tmp_path / "new", tokenizer="byte")


def test_export_into_a_directory_that_may_not_be_written_names_the_target(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), ".out.x7")

    monkeypatch.setattr("gptkit.runs.exporting.TemporaryDirectory", refuse)
    with pytest.raises(FileError, match="out cannot be written: Permission denied"):
        gptkit.export_model(run, tmp_path / "out")
