"""The run that most tests use."""

from __future__ import annotations

import pytest
from llamacpp_runs import DECODER, make_run

import gptkit


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> gptkit.Run:
    """A run with random weights. Not to be changed."""
    return make_run(tmp_path_factory.mktemp("llama") / "run", DECODER)
