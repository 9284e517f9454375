"""Fixtures and settings of all tests."""

from __future__ import annotations

import os

import pytest

# Tensors are tiny, so synchronizing threads would take longer than the computation.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def own_cache_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither read nor write the user's cache."""
    os.environ["GPTKIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
