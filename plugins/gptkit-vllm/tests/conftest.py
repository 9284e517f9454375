"""Runs that most tests use, and the fake of vLLM."""

from __future__ import annotations

import sys
from typing import Any

import fake_vllm
import pytest
from vllm_runs import LLAMA, PARALLEL, make_run

import gptkit


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> gptkit.Run:
    """A run of the family `llama` with random weights. Not to be changed."""
    return make_run(tmp_path_factory.mktemp("llama") / "run", LLAMA)


@pytest.fixture(scope="session")
def own_run(tmp_path_factory: pytest.TempPathFactory) -> gptkit.Run:
    """A run of a composition that no family expresses. Not to be changed."""
    return make_run(tmp_path_factory.mktemp("own") / "run", PARALLEL)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The fake, in place of the package vllm, whether or not it is installed."""
    package = fake_vllm.make()
    for name, module in {"vllm": package, **{f"vllm.{name}": getattr(package, name) for name in fake_vllm.MODULES}}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return package
