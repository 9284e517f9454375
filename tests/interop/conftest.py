"""Fixtures of the tests of external models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.external_files import sound
from tests.support.gguf_models import DECODER, make_run

__all__ = ["sound", "tiny_run"]


@pytest.fixture
def tiny_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of one layer with random weights, below the current directory."""
    monkeypatch.chdir(tmp_path)
    return make_run(tmp_path / "runs" / "tiny", {**DECODER, "n_layers": 1})
