"""Environment variables of the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gptkit
from gptkit.cli import console
from gptkit.cli.environment import VARIABLES, ignore_unusable_width, is_on, misspelled


def test_misspelled_variables_are_named_with_the_one_that_is_meant() -> None:
    given = ["GPTKIT_CAHCE", "GPTKIT_DISABLED", "GPTKITCACHE", "gptkit_debug", *VARIABLES, "GPTKIT_OF_A_PLUGIN", "PATH"]
    assert misspelled(dict.fromkeys(given, "1")) == {
        "GPTKIT_CAHCE": "GPTKIT_CACHE",
        "GPTKIT_DISABLED": "GPTKIT_DISABLE",
        "GPTKITCACHE": "GPTKIT_CACHE",
        "gptkit_debug": "GPTKIT_DEBUG",
    }


def test_misspelled_variable_prints_one_warning() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gptkit", "--version"],
        env={**os.environ, "GPTKIT_CAHCE": "x"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0
    assert done.stderr == "warning: environment variable GPTKIT_CAHCE is not used; did you mean GPTKIT_CACHE?\n"


def test_gptkit_itself_is_not_disabled() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gptkit", "plugins"],
        env={**os.environ, "GPTKIT_DISABLE": "other, GPTKIT"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: GPTKIT_DISABLE names gptkit itself\nhint: Remove it from GPTKIT_DISABLE, which is for plugins.\n"
    )


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("yes", True), ("0", False), ("False", False), ("", False)])
def test_switches(value: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPTKIT_DEBUG", value)
    assert is_on("GPTKIT_DEBUG") is expected


def test_all_variables_that_the_sources_read_are_known() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in Path(gptkit.__file__).parent.rglob("*.py"))
    read = set(re.findall(r"[\"\']GPTKIT_[A-Z_]+[\"\']", sources))
    assert {name.strip("\"'") for name in read} == set(VARIABLES)


@pytest.mark.parametrize(("width", "kept"), [("0", False), ("7", False), ("40", True), ("wide", True)])
def test_width_of_no_word_is_ignored(width: str, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    ignore_unusable_width()
    assert ("COLUMNS" in os.environ) is kept


def test_long_value_continues_on_the_next_line_of_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    console.stdout().print(console.table(["name", "value"], [["a" * 30, "0123456789" * 3]]))
    printed = capsys.readouterr().out
    assert printed.count("a") == 30 + "name value".count("a")
    assert "…" not in printed
