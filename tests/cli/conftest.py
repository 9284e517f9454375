"""Fixtures that call the command line in a temporary directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import Call, caller, write_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a spec and its corpus in the current directory."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def call() -> Call:
    """Call the command line and check the exit code; the result has exit_code, stdout and stderr."""
    return caller()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, call: Call) -> Iterator[Path]:
    """A run, trained through the command line. Not to be changed."""
    import torch

    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("trained")
    write_project(directory)
    call("train", directory / "mini.yaml", directory / "run", "--quiet")
    before = _contents(directory / "run")
    yield directory / "run"
    assert _contents(directory / "run") == before, "a test has changed the run of all tests of the command line"


def _contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}
