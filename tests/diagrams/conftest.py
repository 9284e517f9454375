"""Fixtures that call the command line in a temporary directory."""

from __future__ import annotations

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
    """Call the command line and check the exit code."""
    return caller()
