"""`gptkit docs`: what a build replaces and refuses, and what it requires."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from gptkit.core.errors import GptkitError
from gptkit.docs import building
from gptkit.docs.site import source
from tests.support.command_line import caller


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build a site of two files in place of the real one."""

    def build(directory: Path) -> None:
        (directory / "components").mkdir(parents=True)
        (directory / "index.html").write_text("first page")
        (directory / "components" / "rms.html").write_text("a component")

    monkeypatch.setattr(building, "_mkdocs", build)
    monkeypatch.setattr(building, "require_builder", lambda: None)


def test_site_is_replaced_by_the_next_build(tmp_path: Path) -> None:
    page = building.build(tmp_path / "deep" / "site")
    stale = page.parent / "components" / "rms.html"
    assert page.read_text() == "first page"
    assert stale.is_file()
    page.unlink()  # a missing file is written again
    assert building.build(page.parent) == page
    assert page.read_text() == "first page"
    assert building.build(page.parent).is_file()


@pytest.mark.parametrize("change", ["added", "edited", "linked"])
def test_files_of_the_user_are_never_replaced(tmp_path: Path, change: str) -> None:
    out = tmp_path / "site"
    page = building.build(out)
    if change == "added":
        (out / "notes.txt").write_text("mine")
    elif change == "edited":
        page.write_text("mine")
    else:
        page.unlink()
        page.symlink_to(tmp_path / "elsewhere.html")
        (tmp_path / "elsewhere.html").write_text("mine")
    with pytest.raises(GptkitError, match=r"was not written by gptkit docs|has been changed since"):
        building.build(out)
    assert "mine" in {file.read_text() for file in out.iterdir() if file.is_file()}


def test_other_targets_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(GptkitError, match="is not a directory"):
            building.build(tmp_path / name)
    (tmp_path / "empty").mkdir()
    assert building.build(tmp_path / "empty").is_file()


def test_command_prints_the_first_page(tmp_path: Path) -> None:
    done = caller()("docs", "build", "--out", tmp_path / "site")
    assert done.stdout.strip() == str(tmp_path / "site" / "index.html")


def test_missing_builder_is_reported_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "mkdocs" else find(name, *more))
    done = caller()("docs", "build", code=2)
    assert "the documentation requires mkdocs, which is not installed" in done.stderr
    assert "pip install 'gptkit[docs]'" in done.stderr


def test_addresses_are_checked() -> None:
    assert "Write HOST:PORT" in caller()("docs", "serve", "--address", "8000", code=2).stderr


def test_source_has_every_page_of_the_navigation() -> None:
    configuration = (source() / "mkdocs.yml").read_text(encoding="utf-8")
    pages = re.findall(r"([\w/-]+\.md)(?! *#)(?!.*# generated)$", configuration, re.MULTILINE)
    assert len(pages) > 20
    assert not [page for page in pages if not (source() / "docs" / page).is_file()]
