"""The cached schema is used while nothing that it depends on has changed, and a useless cache does no harm."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gptkit.core.registry import Registry
from gptkit.reflect import schema_cache
from gptkit.reflect.schema_cache import cached_schema
from tests.support.fake_plugins import make, plugin, registry


class Maker:
    """Builder of texts that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        return f'{{"text": {self.calls}}}\n'


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the directory of entries; files that were written just now count as unchanged since their import."""
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(schema_cache, "_SETTLED", 0.0)
    return tmp_path / "cache" / "schema"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """Return an imported module, as of a plugin that is installed in editable form."""
    file = tmp_path / "editable_plugin.py"
    file.write_text("WIDTH = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    imported = importlib.import_module("editable_plugin")
    monkeypatch.setitem(sys.modules, "editable_plugin", imported)
    return imported


def mine(version: str = "1.0", **options: Any) -> Registry:
    return registry(plugin("third-party", [make("mine")], version=version), **options)


def test_second_call_reads_the_entry(cache: Path) -> None:
    maker = Maker()
    texts = {cached_schema(mine(), maker) for _ in range(3)}
    assert (texts, maker.calls) == ({'{"text": 1}\n'}, 1)
    assert [path.suffix for path in cache.iterdir()] == [".json"]
    assert cache.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "other",
    [
        registry,
        lambda: mine("1.1"),
        lambda: mine(disabled={"third-party"}),
        lambda: registry(plugin("third-party", [make("mine"), make("more")])),
        lambda: registry(plugin("third-party", [make("mine")]), plugin("another", [make("other")])),
    ],
    ids=["uninstalled", "upgraded", "disabled", "another component", "another plugin"],
)
def test_other_plugins_have_another_schema(other: Callable[[], Registry]) -> None:
    maker = Maker()
    first = cached_schema(mine(), maker)
    assert cached_schema(other(), maker) != first
    assert cached_schema(mine(), maker) == first


def test_disabling_by_the_environment_selects_another_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker()
    first = cached_schema(mine(disabled=None), maker)
    monkeypatch.setenv("GPTKIT_DISABLE", "third-party")
    assert cached_schema(mine(disabled=None), maker) != first
    assert maker.calls == 2


def test_newly_installed_distribution_selects_another_schema(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    maker = Maker()
    cached_schema(mine(), maker)
    (tmp_path / "optional_dependency-1.0.dist-info").mkdir()
    cached_schema(mine(), maker)
    assert maker.calls == 2


@pytest.mark.parametrize("change", ["edited", "same size", "removed"])
def test_changed_source_file_makes_the_entry_invalid(module: ModuleType, change: str) -> None:
    maker, file = Maker(), Path(str(module.__file__))
    cached_schema(mine(), maker)
    cached_schema(mine(), maker)
    assert maker.calls == 1
    if change == "removed":
        file.unlink()
    else:
        file.write_text("WIDTH = 22\n" if change == "edited" else "WIDTH = 2\n")
    cached_schema(mine(), maker)
    assert maker.calls == 2
    cached_schema(mine(), maker)
    assert maker.calls == 2


def test_file_that_may_have_changed_after_its_import_is_not_trusted(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(schema_cache, "_SETTLED", 5.0)
    Path(str(module.__file__)).touch()
    maker = Maker()
    cached_schema(mine(), maker)
    cached_schema(mine(), maker)
    assert maker.calls == 2
    assert not cache.exists()


def test_unavailable_components_are_not_cached(cache: Path) -> None:
    def fail() -> Any:
        raise ImportError("no module named 'optional'")

    broken = registry(plugin("third-party", load=fail))
    clashing = registry(plugin("one", [make("mine")]), plugin("two", [make("mine")]))
    for incomplete in (broken, clashing):
        maker = Maker()
        cached_schema(incomplete, maker)
        cached_schema(incomplete, maker)
        assert maker.calls == 2
    assert not cache.exists()


DAMAGED: dict[str, Callable[[Any], bytes]] = {
    "empty": lambda entry: b"",
    "truncated": lambda entry: json.dumps(entry).encode()[:-100],
    "binary": lambda entry: b"\xff\xfe\x00",
    "nested": lambda entry: b"[" * 100_000,
    "list": lambda entry: b"[]",
    "other text": lambda entry: json.dumps({**entry, "text": "{}"}).encode(),
    "no text": lambda entry: json.dumps({**entry, "text": None}).encode(),
    "files": lambda entry: json.dumps({**entry, "files": [1]}).encode(),
    "file name": lambda entry: json.dumps({**entry, "files": {"a\0b": [1, 2, 3]}}).encode(),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_entry_is_replaced(cache: Path, damage: str) -> None:
    maker = Maker()
    cached_schema(mine(), maker)
    (entry,) = cache.iterdir()
    entry.write_bytes(DAMAGED[damage](json.loads(entry.read_bytes())))
    assert cached_schema(mine(), maker) == '{"text": 2}\n'
    assert cached_schema(mine(), maker) == '{"text": 2}\n'


@pytest.mark.parametrize("where", ["a file", "below a file", "an unwritable directory", "no home"])
def test_unusable_cache_directory_only_costs_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str) -> None:
    if where == "no home":
        monkeypatch.setattr(schema_cache, "cache_directory", lambda: Path("~nobody-of-that-name").expanduser())
    elif where == "an unwritable directory":
        (tmp_path / "cache").mkdir(mode=0o500)
        if os.access(tmp_path / "cache", os.W_OK):
            pytest.skip("this user may write everywhere")
    else:
        (tmp_path / "file").write_text("mine")
        monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "file" / ("x" if where == "below a file" else "")))
    maker = Maker()
    assert [cached_schema(mine(), maker) for _ in range(2)] == ['{"text": 1}\n', '{"text": 2}\n']


def test_old_entries_are_removed_and_files_of_the_user_are_not(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "notes.json").write_text("mine")
    for number in range(12):
        cached_schema(mine(f"1.{number}"), Maker())
        for age, path in enumerate(sorted(cache.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)):
            os.utime(path, (1e9 - age, 1e9 - age))
    assert (cache / "notes.json").read_text() == "mine"
    assert len(list(cache.iterdir())) == 9
    maker = Maker()
    cached_schema(mine("1.11"), maker)
    cached_schema(mine("1.0"), maker)
    assert maker.calls == 1
