"""The contract of a kind: members read from source files equal those of the imported classes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest

from gptkit.core.registry import default_registry
from gptkit.reflect import contract
from tests.support.fake_plugins import Norm

RUNTIMES = [entry.cls.runtime for entry in default_registry().kinds().values() if entry.cls.runtime]


@pytest.mark.parametrize("location", RUNTIMES)
def test_a_class_read_from_its_source_equals_the_imported_one(location: str) -> None:
    module, _, name = location.partition(":")
    imported = contract._imported(getattr(importlib.import_module(module), name))
    assert imported.members
    assert contract._in_source(module, name) == imported


SOURCE = '''
from __future__ import annotations
from abc import abstractmethod
from functools import cached_property

class Thing:
    """A thing.

        Indented.
    """

    @property
    def size(self) -> int | None:
        """Its size."""

    @cached_property
    def late(self) -> int:
        """Not a member."""

    def plain(self, a: int, /, b: str = "x", *rest: int, c, d: dict[str, int] = {1: 2}, **more: float) -> None:
        """All kinds of parameters."""

    @abstractmethod
    def needed(self, *, x_BT: Tensor):
        """Required."""

    @classmethod
    def made(cls) -> Thing:
        """A class method."""

    def __call__(self, x=1.5):
        """Called."""

    def _private(self) -> None:
        """Not a member."""

    def undocumented(self) -> None: ...
'''


def test_all_forms_of_members_are_read_from_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "contract_of_a_thing.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    read = contract._in_source("contract_of_a_thing", "Thing")
    assert read is not None
    assert [member.head for member in read.members] == [
        "size: int | None",
        "plain(self, a: int, /, b: str = x, *rest: int, c, d: dict[str, int] = {1: 2}, **more: float) -> None",
        "needed(self, *, x_BT: Tensor)",
        "made(cls) -> Thing",
        "__call__(self, x=1.5)",
    ]
    assert [member.must for member in read.members] == [False, False, True, False, False]
    assert read == contract._imported(importlib.import_module("contract_of_a_thing").Thing)


def test_a_runtime_class_without_a_source_file_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Runtime:
        """Class defined in a notebook."""

        def run(self) -> int:
            """Run."""
            return 1

    module = ModuleType("module_without_source")
    module.Runtime = Runtime  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "module_without_source", module)

    class Kind(Norm):
        kind: ClassVar[str] = "kind"
        runtime: ClassVar[str] = "module_without_source:Runtime"

    [runtime] = contract.runtime_classes(Kind)
    assert runtime.doc == "Class defined in a notebook."
    assert [member.head for member in runtime.members] == ["run(self) -> int"]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("callback", ["Callback", "Training", "TrainingStart", "StepPlan"]),
        ("sampler", ["Sampler", "SamplerContext"]),
        ("decoding", ["Search", "DecodingContext", "Step", "Continuation"]),
        ("block", ["Block", "Step", "Within"]),
        ("norm", []),
    ],
)
def test_classes_that_methods_receive_belong_to_the_contract(kind: str, names: list[str]) -> None:
    shown = {each.name: each.doc for each in contract.runtime_classes(default_registry().kinds()[kind].cls)}
    assert set(names) <= shown.keys()
    assert "BuildContext" not in shown
    assert all(shown[name] for name in names)
