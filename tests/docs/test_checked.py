"""Outcomes of the conformance checks: computed by several processes, and kept until a source changes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry, default_registry
from gptkit.docs import checked as module
from gptkit.docs.checked import checked, outcomes_of

KINDS = ("schedule", "activation")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The processes that were started."""
    processes: list[Any] = []
    popen = subprocess.Popen

    def recorded(*args: Any, **options: Any) -> Any:
        processes.append(popen(*args, **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", recorded)
    return processes


@pytest.mark.slow
def test_processes_find_what_one_process_finds(started: list[Any]) -> None:
    registry = default_registry()
    expected = {
        (kind, name): outcomes_of(registry, kind, name, {})
        for kind in registry.kinds()
        if kind in KINDS
        for name in registry.names(kind)
    }
    assert checked(registry, KINDS) == expected
    assert started
    assert "passed" in expected["schedule", "cosine"].values()


@pytest.mark.slow
def test_outcomes_are_kept_until_a_source_changes(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = checked(default_registry(), KINDS[:1])
    count = len(started)
    assert checked(default_registry(), KINDS[:1]) == first
    assert len(started) == count
    monkeypatch.setattr(module, "_sources", lambda package: f"{package} has been edited")
    assert checked(default_registry(), KINDS[:1]) == first
    assert len(started) > count


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}'])
def test_damaged_file_is_replaced(cache: Path, started: list[Any], text: str) -> None:
    first = checked(default_registry(), KINDS[:1])
    (file,) = (cache / "conformance").iterdir()
    file.write_text(text, encoding="utf-8")
    assert checked(default_registry(), KINDS[:1]) == first
    assert len(json.loads(file.read_text(encoding="utf-8"))) == len(first)


def test_other_registry_is_checked_in_this_process(builtin: Registry, cache: Path, started: list[Any]) -> None:
    assert checked(builtin, ["schedule"]) == checked(default_registry(), ["schedule"])
    assert len(list((cache / "conformance").iterdir())) == 1


def test_process_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(GptkitError, match="the conformance checks ended with status 1"):
        checked(default_registry(), ["schedule"])


def test_only_own_files_are_removed(tmp_path: Path) -> None:
    own = [tmp_path / f"{number:016x}.json" for number in range(7)]
    for file in [*own, tmp_path / "mine.json"]:
        file.write_text("{}", encoding="utf-8")
    module._write(own[0], {})
    left = {path.name for path in tmp_path.iterdir()}
    assert "mine.json" in left
    assert own[0].name in left
    assert len(left) == 1 + module._KEPT
