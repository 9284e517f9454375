"""Outcomes of the conformance checks: computed by several processes, and kept until a source changes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry, default_registry
from gptkit.docs import checked as module
from gptkit.docs.checked import Checking, Outcomes, checked, outcomes_of
from gptkit.docs.component_checks import mark
from gptkit.docs.site import with_outcomes

KINDS = ("schedule", "activation")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "current", lambda registry: {})  # the stored outcomes have their own tests
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


class Here:
    """In place of the processes: outcomes that are computed in this one."""

    calls: ClassVar[list[int]] = []

    def __init__(self, names: Sequence[tuple[str, str]]) -> None:
        self.names = names

    def results(self) -> dict[tuple[str, str], Outcomes]:
        self.calls.append(len(self.names))
        return {each: outcomes_of(default_registry(), *each, {}) for each in self.names}

    def stop(self) -> None:
        pass


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Start no process; return the numbers of components that were checked."""
    monkeypatch.setattr(Here, "calls", [])
    monkeypatch.setattr(module, "Pool", Here)
    return Here.calls


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
    assert all(process.poll() is not None for process in started)
    assert "passed" in expected["schedule", "cosine"].values()
    count = len(started)
    assert checked(registry, KINDS) == expected
    assert len(started) == count


def test_outcomes_are_kept_until_a_source_changes(here: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    first = checked(default_registry(), KINDS[:1])
    assert checked(default_registry(), KINDS[:1]) == first
    monkeypatch.setattr(module, "package_sources", lambda package: f"{package} has been edited")
    assert checked(default_registry(), KINDS[:1]) == first
    assert here == [len(first), 0, len(first)]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}'])
def test_damaged_file_is_replaced(cache: Path, here: list[int], text: str) -> None:
    first = checked(default_registry(), KINDS[:1])
    (file,) = (cache / "conformance").iterdir()
    file.write_text(text, encoding="utf-8")
    assert checked(default_registry(), KINDS[:1]) == first
    assert len(json.loads(file.read_text(encoding="utf-8"))) == len(first)
    assert here == [len(first)] * 2


def test_outcomes_of_another_environment_with_the_same_sources_are_used(
    here: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = checked(default_registry(), KINDS[:1])
    monkeypatch.setattr("sys.prefix", "another")
    assert checked(default_registry(), KINDS[:1]) == first
    assert here == [len(first), 0]


def test_processes_are_ended_with_the_build(started: list[Any]) -> None:
    checking = Checking(default_registry(), ["family"])
    checking.stop()
    assert started
    assert all(process.poll() is not None for process in started)
    with pytest.raises(GptkitError, match="the conformance checks ended with status"):
        checking.outcomes()


def test_marks_are_replaced_by_outcomes(here: list[int]) -> None:
    registry = default_registry()
    checking = Checking(registry, KINDS[:1])
    text = f"a\n\n{mark('schedule', 'cosine')}\n\nb"
    page = with_outcomes(text, registry, checking.outcomes)
    assert page.startswith('a\n\n??? note "')
    assert page.endswith("\n\nb")
    assert with_outcomes("no mark", registry, lambda: pytest.fail("outcomes are not needed")) == "no mark"
    assert with_outcomes(text, registry, checking.outcomes) == page
    assert len(here) == 1


def test_other_registry_is_checked_in_this_process(builtin: Registry, cache: Path, here: list[int]) -> None:
    outcomes = checked(builtin, ["schedule"])
    assert here == []
    assert not (cache / "conformance").exists()
    assert checked(default_registry(), ["schedule"]) == outcomes
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
