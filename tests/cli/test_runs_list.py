"""`gptkit runs`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.browser import browser_page
from tests.support.command_line import Call


@pytest.fixture
def runs(call: Call, project: Path) -> Path:
    """Two runs that differ in the norm, one directory below the other files of the user."""
    for name, norm in (("a", "layer"), ("b", "rms")):
        call(
            "train",
            "mini.yaml",
            f"experiments/norms/{name}",
            "-q",
            "--set",
            f"model.norm={norm}",
            "--set",
            "training.seed=3",
        )
    (project / "experiments" / "notes.txt").write_text("mine", encoding="utf-8")
    (project / "experiments" / "other").mkdir()
    (project / "experiments" / "other" / "spec.yaml").write_text("not a run", encoding="utf-8")
    return project / "experiments"


def test_runs_are_listed_with_losses_and_differences(call: Call, runs: Path) -> None:
    listed = json.loads(call("runs", "experiments", "--json", "-q").stdout)
    assert {Path(each["run"]).name for each in listed} == {"a", "b"}
    losses = [each["lowest_validation_loss"] for each in listed]
    assert losses == sorted(losses)
    for each in listed:
        lines = [json.loads(line) for line in (Path(each["run"]) / "metrics.jsonl").read_text().splitlines()]
        assert each["step"] == lines[-1]["step"] == each["steps"]
        assert each["lowest_validation_loss"] == min(line["validation_loss"] for line in lines if "validation_loss" in line)
        norm = {"a": "layer", "b": "rms"}[Path(each["run"]).name]
        assert each["spec"] == {"model.norm": norm, "model.final_norm": norm}
        assert each["problem"] is None
    table = call("runs", "experiments", "-q").stdout
    assert "Differences between the specs" in table
    assert "model.norm" in table


@pytest.mark.slow
def test_page_draws_the_runs_that_are_checked(call: Call, runs: Path) -> None:
    call("runs", "experiments", "-q", "-o", "runs.html")
    for width in (390, 1280):
        with browser_page(width=width) as page:
            page.goto((runs.parent / "runs.html").as_uri())
            assert page.inner_text("h1") == "experiments"
            first = page.locator("section").nth(1)
            assert first.locator("polyline").count() == 2
            page.locator(".listing input").first.uncheck()
            assert first.locator("polyline").count() == 1
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_run_whose_plugin_is_missing_is_listed_with_the_reason(call: Call, runs: Path) -> None:
    file = runs / "norms" / "b" / "spec.yaml"
    file.write_text(file.read_text().replace("rms", "unheard-of"), encoding="utf-8")
    listed = {Path(each["run"]).name: each for each in json.loads(call("runs", "experiments", "--json", "-q").stdout)}
    assert "unheard-of" in listed["b"]["problem"]
    assert listed["b"]["lowest_validation_loss"] > 0
    assert listed["a"]["problem"] is None


def test_damaged_metrics_do_not_hide_the_other_runs(call: Call, runs: Path) -> None:
    (runs / "norms" / "a" / "metrics.jsonl").write_bytes(b"\xff{not json\n")
    listed = {Path(each["run"]).name: each for each in json.loads(call("runs", "experiments", "--json", "-q").stdout)}
    assert listed["a"]["loss"] is None
    assert listed["b"]["loss"] > 0


def test_wrong_directories_and_outputs_are_reported(call: Call, runs: Path) -> None:
    assert "does not exist" in call("runs", "nowhere", code=2).stderr
    assert "is a file" in call("runs", "experiments/notes.txt", code=2).stderr
    (runs / "page.html").write_text("mine", encoding="utf-8")
    assert "was not written by gptkit" in call("runs", "experiments", "-o", "experiments/page.html", code=2).stderr
    assert (runs / "page.html").read_text() == "mine"
    assert "has no runs" in call("runs", "experiments/other").stderr


def test_many_differences_are_lines_in_a_narrow_terminal(call: Call, project: Path) -> None:
    changes = {"model.norm": "layer", "model.d_model": "32", "model.position": "learned", "training.seed": "3"}
    call("train", "mini.yaml", "runs/a", "-q")
    call(
        "train",
        "mini.yaml",
        "runs/b",
        "-q",
        *(word for path, value in changes.items() for word in ("-s", f"{path}={value}")),
    )
    narrow = call("runs", "runs", "-q", env={"COLUMNS": "80"}).stdout.partition("Differences")[2]
    for path, value in changes.items():
        below = narrow.partition(f"\n{path}\n")[2].splitlines()[:2]
        (line,) = [line for line in below if line.split()[0] == "runs/b"]
        assert value in line
    wide = call("runs", "runs", "-q", env={"COLUMNS": "300"}).stdout.partition("Differences")[2]
    assert all(path in wide.splitlines()[1] for path in changes)


def test_numbers_are_lines_in_a_narrow_terminal(call: Call, runs: Path) -> None:
    wide = call("runs", str(runs), env={"COLUMNS": "90"}).stdout
    narrow = call("runs", str(runs), env={"COLUMNS": "40"}).stdout
    assert "…" not in narrow
    losses = re.findall(r"\d\.\d{4}", wide)
    assert losses
    assert re.findall(r"\d\.\d{4}", narrow)[: len(losses)] == losses


def test_a_run_that_was_not_trained_has_no_planned_steps(call: Call, project: Path) -> None:
    call("train", "mini.yaml", "runs/a", "-q")
    call("export", "runs/a", "external", "-q")
    call("import", "external", "runs/imported", "-q")
    lines = call("runs", "runs", "-q", env={"COLUMNS": "200"}).stdout.partition("Differences")[0].splitlines()
    steps = {line.split()[0]: line.split()[1] for line in lines[1:] if line}
    assert steps["runs/imported"] == "0"
    assert "/" in steps["runs/a"]
