"""Families are small files without model code, and so are the parts that they share."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from torch import nn

import gptkit.interop.families
from gptkit.interop.conversion import families

DIRECTORY = Path(gptkit.interop.families.__path__[0])
FILES = [path for path in sorted(DIRECTORY.glob("*.py")) if path.stem not in {"__init__", "decoder"}]
EVERY = sorted(DIRECTORY.rglob("*.py"))


@pytest.mark.parametrize("file", EVERY, ids=lambda file: str(file.relative_to(DIRECTORY)))
def test_every_file_of_families_has_at_most_80_lines(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 80


def test_each_family_has_a_separate_file() -> None:
    modules = {type(family).__module__.rpartition(".")[2] for family in families().values()}
    assert modules == {file.stem for file in FILES}
    assert len(modules) == len(families()) >= 30


def test_families_contain_no_model_code() -> None:
    names = [info.name for info in pkgutil.walk_packages(gptkit.interop.families.__path__, "gptkit.interop.families.")]
    assert len(names) > 30
    for name in names:
        for value in vars(importlib.import_module(name)).values():
            own = inspect.isclass(value) and value.__module__ == name
            assert not (own and issubclass(value, nn.Module)), f"{name}.{value}"
