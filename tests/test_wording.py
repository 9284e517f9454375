"""The word list of tools/wording.py: avoided terms are reported where they occur, and the checked paths contain none."""

from __future__ import annotations

import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wording() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools" / "wording.py"), run_name="wording")


@pytest.fixture(scope="module")
def words(wording: dict[str, Any]) -> Any:
    return wording["terms"](tomllib.loads((ROOT / "tools" / "wording.toml").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("text", "line", "hit"),
    [
        ("Every mistake.", 1, "mistake"),
        ("# The value is\n# no number.\n", 1, "is no"),
        ('x = "a"\nraise Error(\n    "there is "\n    "no such file"\n)\n', 3, "is no"),
        ("def _tell(run):\n    pass\n", 1, "tell"),
        ("Laid over the default.", 1, "Laid"),
        ('class A:\n    """The runtime part."""\n', 2, "runtime part."),
        ("It takes next to\nnothing.", 1, "next to nothing"),
    ],
)
def test_avoided_terms_are_reported_with_their_line(
    wording: dict[str, Any], words: Any, text: str, line: int, hit: str
) -> None:
    assert [(at, result) for at, _, result in wording["check_text"](text, words)] == [(line, hit)]


@pytest.mark.parametrize("text", ["a model card", "B stands for batch", "a logits processor", "default values"])
def test_correct_uses_are_not_reported(wording: dict[str, Any], words: Any, text: str) -> None:
    assert not list(wording["check_text"](text, words))


def test_docstrings_in_the_third_person_are_reported(wording: dict[str, Any]) -> None:
    text = 'def f():\n    """Returns 1."""\n\nx = 1\n"""Is one."""\n\ndef g():\n    """Return 1; it is."""\n'
    assert list(wording["check_docstrings"](text, {"Returns", "Is"})) == [(5, "Is"), (2, "Returns")]


def test_uninformative_names_are_reported(wording: dict[str, Any]) -> None:
    text = "def f(told):\n    found = told\n    return found\n"
    assert sorted(wording["check_names"](text, {"found", "told"})) == [(1, "told"), (2, "found")]


def test_scripts_and_style_sheets_are_checked(wording: dict[str, Any]) -> None:
    assets = {path for path in (ROOT / "gptkit" / "pages" / "assets").iterdir() if path.suffix in (".js", ".css", ".html")}
    assert len(assets) > 4
    assert assets <= set(wording["tracked"](["gptkit/"]))


@pytest.mark.nightly  # `make lint` checks the same
def test_checked_paths_contain_no_avoided_term(wording: dict[str, Any]) -> None:
    assert not [str(hit) for hit in wording["check"]()]
