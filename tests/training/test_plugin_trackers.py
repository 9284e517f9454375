"""The hook `gptkit_trackers`: order, isolation, and arguments."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import gptkit
from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry, default_registry
from gptkit.kinds.tracker import Tracker
from tests.support.fake_plugins import FakeDistribution, FakeEntryPoint

SPEC = {
    "tokenizer": "byte",
    "model": {"d_model": 16, "n_layers": 1, "context_length": 8, "attention": {"n_heads": 2}},
    "training": {"steps": 2, "batch_size": 2, "log_every": 1, "evaluate_every": 9, "sample_every": 9, "checkpoint_every": 1},
}


class Notes(Tracker):
    def __init__(self, name: str, notes: list[str], fail: bool = False) -> None:
        self.name, self.notes, self.fail = name, notes, fail

    def on_start(self, start: Any) -> None:
        self.notes.append(f"{self.name} start {start.step}/{start.steps}")

    def on_metrics(self, step: int, metrics: Any) -> None:
        if self.fail:
            raise RuntimeError("broken tracker")
        self.notes.append(f"{self.name} metrics {step}")

    def on_checkpoint(self, step: int, directory: Path) -> None:
        self.notes.append(f"{self.name} checkpoint {step}")

    def on_end(self, step: int, error: BaseException | None) -> None:
        self.notes.append(f"{self.name} end {step} {error}")


def entry(name: str, hook: Any) -> FakeEntryPoint:
    module = ModuleType(f"watching_{name}")
    hook.__name__ = "gptkit_trackers"
    module.gptkit_trackers = hookimpl(hook)  # type: ignore[attr-defined]
    return FakeEntryPoint(name, module.__name__, FakeDistribution(f"gptkit-{name}", "1.0"), lambda: module)


def registry(*extra: FakeEntryPoint) -> Registry:
    import importlib.metadata

    return Registry([*importlib.metadata.entry_points(group="gptkit"), *extra])


def test_plugin_trackers_are_called_in_order_and_isolated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notes: list[str] = []
    seen: list[Any] = []

    def first(start: Any) -> list[Tracker]:
        seen.append(start.spec["name"])
        return [Notes("a", notes), Notes("broken", notes, fail=True)]

    def second() -> list[Tracker]:
        return [Notes("b", notes)]

    def raises() -> list[Tracker]:
        raise KeyError("in the hook")

    def invalid() -> Any:
        return 7

    provided = registry(entry("x1", first), entry("x2", raises), entry("x3", invalid), entry("x4", second))
    with caplog.at_level(logging.WARNING, logger="gptkit"):
        gptkit.train(SPEC, tmp_path / "run", progress=False, registry=provided)
    assert seen == ["gpt"]
    assert notes[0] == "a start 0/2"
    assert notes.index("a metrics 1") < notes.index("b metrics 1")
    assert "a checkpoint 1" in notes
    assert notes[-2:] == ["a end 2 None", "b end 2 None"]
    assert [note for note in notes if note.startswith("broken")] == ["broken start 0/2", "broken end 0 broken tracker"]
    text = caplog.text
    assert "gptkit-x2==1.0 failed in gptkit_trackers" in text
    assert "gptkit-x3==1.0: gptkit_trackers returned 7" in text
    assert "broken tracker" in text


def test_trainings_without_plugin_trackers_call_no_hook() -> None:
    assert list(default_registry().call("gptkit_trackers", start=None)) == []
