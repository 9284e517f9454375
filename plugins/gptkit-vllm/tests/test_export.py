"""Directories that the engine writes: reuse, their number, and models that are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm_runs import ALIBI, finished, make_run, opened, request

import gptkit
from gptkit.core.errors import ExternalModelError, FileError


def test_later_starts_do_not_read_the_weights(
    run: gptkit.Run, vllm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(run, directory=str(tmp_path)):
        pass
    (directory,) = tmp_path.glob("gptkit-*")
    written = (directory / "config.json").stat().st_ino

    def refuse(*_: Any) -> Any:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr("gptkit.engines.exports.TokenRows.get", refuse)
    with opened(run, directory=str(tmp_path)) as engine:
        assert finished(engine, request(run))[0].n_generated == 12
    assert (directory / "config.json").stat().st_ino == written


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions of POSIX")
def test_exports_that_others_may_change_are_refused(run: gptkit.Run, vllm: Any, tmp_path: Path) -> None:
    with opened(run, directory=str(tmp_path)):
        pass
    (directory,) = tmp_path.glob("gptkit-*")
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.chmod(0o777)
    with pytest.raises(FileError, match="others may write to it"), opened(run, directory=str(tmp_path)):
        pass


def test_exports_are_bounded_and_other_files_kept(run: gptkit.Run, vllm: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "gptkit-mine").mkdir(parents=True)
    (cache / "notes").write_text("of the user")
    other = gptkit.load(run.directory, device="cpu")
    for number in range(3):
        with torch.no_grad():
            next(other.model.parameters()).add_(0.5)
        other.save(tmp_path / f"run-{number}")
        with opened(gptkit.load(tmp_path / f"run-{number}", device="cpu"), directory=str(cache), keep=2):
            pass
    assert sum(path.name not in ("gptkit-mine", "notes") for path in cache.iterdir()) == 2
    assert (cache / "gptkit-mine").is_dir()
    assert (cache / "notes").exists()


def test_models_that_vllm_cannot_run_are_refused(tmp_path: Path, vllm: Any) -> None:
    run = make_run(tmp_path / "run", ALIBI)
    with pytest.raises(ExternalModelError, match=r"vLLM cannot compute .*: scores have terms") as raised, opened(run):
        pass
    assert raised.value.hint == "Use --engine native."
    assert not vllm.LLM.opened
