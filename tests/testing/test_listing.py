"""Directories listed in the opposite order."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from gptkit.testing.listing import listed_backwards

WAYS: dict[str, Callable[[Path], Iterable[object]]] = {
    "os.listdir": lambda path: os.listdir(path),  # noqa: PTH208
    "os.scandir": lambda path: [entry.name for entry in os.scandir(path)],
    "os.walk": lambda path: next(os.walk(path))[2],
    "glob.glob": lambda path: glob.glob(str(path / "*")),  # noqa: PTH207
    "Path.iterdir": lambda path: path.iterdir(),
    "Path.glob": lambda path: path.glob("*.txt"),
    "Path.rglob": lambda path: path.rglob("*.txt"),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_list_is_backwards(tmp_path: Path, way: str) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text(name)
    usual = list(WAYS[way](tmp_path))
    with listed_backwards():
        backwards = list(WAYS[way](tmp_path))
    assert len(usual) == 3
    assert backwards == usual[::-1]
    assert list(WAYS[way](tmp_path)) == usual


def test_function_that_a_class_of_glob_holds_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `Path.glob` of Python 3.13 lists directories."""

    class Globber:
        scandir = staticmethod(os.scandir)

    monkeypatch.setattr(glob, "_AsInPython313", Globber, raising=False)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    usual = [entry.name for entry in Globber.scandir(tmp_path)]
    with listed_backwards():
        assert [entry.name for entry in Globber.scandir(tmp_path)] == usual[::-1]
    assert Globber.scandir is os.scandir
