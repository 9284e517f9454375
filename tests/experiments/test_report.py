"""Reports of experiments: page, Markdown, figures, tables."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gptkit.core.errors import GptkitError
from gptkit.experiments.report import write_report
from gptkit.experiments.report_data import report_data
from gptkit.experiments.results import Experiment
from gptkit.experiments.tables import tables
from tests.support.browser import browser_page
from tests.support.experiments import experiment

AXES = {"model.position": ("learned", "rotary", "none"), "model.norm": ("layer", "rms")}
SHIFT = {"learned": 0.0, "rotary": -0.12, "none": 0.2}


def _loss(choices: Mapping[str, str], seed: int, size: str | None, rate: float | None) -> float | str:
    if choices["model.position"] == "none" and choices["model.norm"] == "rms" and seed == 1:
        return "the loss is nan at step 40; lower the learning rate"
    own = 0.004 * math.sin(13 * seed + 7 * len(choices["model.position"]) + 3 * len(choices["model.norm"]))
    return (
        4.1
        + SHIFT[choices["model.position"]]
        + own
        + (0 if size != "large" else -0.3)
        + 0.1 * abs(math.log((rate or 2) / 2))
    )


@pytest.fixture
def compared() -> Experiment:
    return experiment(AXES, _loss, curves=True)


@pytest.fixture
def swept() -> Experiment:
    return experiment(AXES, _loss, curves=True, sizes=("small", "large"), rates=(1.0, 2.0, 4.0))


def _files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_equal_results_give_equal_files(compared: Experiment, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_report(compared, tmp_path / name)
    files = _files(tmp_path / "a")
    assert files == _files(tmp_path / "b")
    assert {"report.html", "report.md", "report/trials.csv", "report/effects.csv", "report/curves.csv"} <= files.keys()
    assert {"report/loss.svg", "report/loss.png", "report/effects.svg", "report/positions.svg"} <= files.keys()


def test_report_replaces_only_what_gptkit_wrote(compared: Experiment, tmp_path: Path) -> None:
    write_report(compared, tmp_path)
    write_report(compared, tmp_path)
    (tmp_path / "report.md").write_text("# my notes\n", encoding="utf-8")
    with pytest.raises(GptkitError, match=r"report\.md exists and was not written by gptkit"):
        write_report(compared, tmp_path)
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == "# my notes\n"


@pytest.mark.parametrize("name", ["report/trials.csv", "report", "report.md/mine.txt"])
def test_what_a_user_made_in_the_directory_is_kept(compared: Experiment, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(GptkitError, match=r"exists and was not written by gptkit"):
        write_report(compared, tmp_path)
    assert path.read_text(encoding="utf-8") == "mine"
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [path]


def test_markdown_has_verdicts_tables_and_the_command(compared: Experiment, tmp_path: Path) -> None:
    write_report(compared, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "model.position = rotary is better than learned" in text
    assert "model.position = none is worse than learned" in text
    assert "model.norm = rms is not distinguishable from layer" in text
    assert "the loss is nan at step 40" in text
    assert "gptkit compare base.yaml --seeds 3" in text
    # Text of samples is a code block, so that its markup is text.
    assert "\n    Once upon a time <b>00</b> & seed 0\n" in text
    for figure in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (tmp_path / figure).is_file()
    header = next(line for line in text.splitlines() if line.startswith("| variant | validation loss"))
    for column in (
        "bits per byte",
        "training tokens/s",
        "decoding tokens/s",
        "peak memory",
        "cache bytes/token",
        "FLOPs/token",
    ):
        assert column in header


def test_tables_have_every_number(compared: Experiment, tmp_path: Path) -> None:
    write_report(compared, tmp_path)
    with (tmp_path / "report" / "trials.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(compared.trials) == 18
    for row, trial in zip(rows, compared.trials, strict=True):
        assert row["validation_loss"] == ("" if trial.validation_loss is None else repr(trial.validation_loss))
        assert row["seed"] == str(trial.seed)
    assert {row["model.position"] for row in rows} == {"learned", "rotary", "none"}
    written = tables(compared)
    assert len(written["curves"]) == sum(len(trial.curve) for trial in compared.trials)
    beyond = [row for row in written["positions"] if row["beyond_training"]]
    assert {row["position"] for row in beyond} == set(range(64, 128))


def test_parquet_files_equal_the_tables(compared: Experiment, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_report(compared, tmp_path)
    for name, rows in tables(compared).items():
        assert parquet.read_table(tmp_path / "report" / f"{name}.parquet").to_pylist() == rows


def test_curves_are_means_with_the_lowest_and_highest_seed(compared: Experiment) -> None:
    curve = report_data(compared)["curves"][0]
    own = [trial.curve[-1][2] or math.nan for trial in compared.trials_of(compared.variants[0].key)]
    step, tokens, mean, low, high = curve["validation"][-1]
    assert (step, tokens) == (100, 102400)
    assert (mean, low, high) == (pytest.approx(sum(own) / 3), min(own), max(own))


def test_unfinished_experiment_has_a_report(tmp_path: Path) -> None:
    nothing = experiment(AXES, lambda *_: None)
    write_report(nothing, tmp_path)
    assert "0 of 18 trainings finished" in (tmp_path / "report.md").read_text(encoding="utf-8")


def _fits(page: Any) -> bool:
    """Return whether a page does not scroll sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_page_in_a_browser(compared: Experiment, tmp_path: Path, width: int, dark: bool) -> None:
    page_file = write_report(compared, tmp_path)
    with browser_page(width=width, dark=dark) as page:
        page.goto(page_file.as_uri())
        assert page.inner_text("h1") == "positions"
        assert page.locator(".forest .verdict").all_inner_texts() == [
            "better",
            "worse",
            "not distinguishable from seed noise",
        ]
        curves = page.locator("section", has_text="Loss curves").first
        assert curves.locator("polyline").count() == 6
        assert curves.locator("polygon.band").count() == 6
        page.locator(".listing input").first.uncheck()
        assert curves.locator("polyline").count() == 5
        curves.get_by_label("horizontal axis").select_option("tokens")
        assert "tokens 102,400" in curves.locator(".readout").inner_text()
        # Samples are text, whatever they contain.
        assert page.locator(".samples b").count() == 0
        assert "<b>00</b>" in page.locator(".samples").inner_text()
        assert _fits(page)


@pytest.mark.slow
def test_page_of_a_sweep_at_two_sizes(swept: Experiment, tmp_path: Path) -> None:
    page_file = write_report(swept, tmp_path)
    with browser_page() as page:
        page.goto(page_file.as_uri())
        sizes = page.locator("section", has_text="Does it hold at another size?").first
        assert "holds: better at every size" in sizes.inner_text()
        rates = page.locator("section", has=page.locator("h2", has_text="Learning rates"))
        assert rates.locator("polyline").count() == 12
        # Only the best rate of each variant is compared.
        assert page.locator(".listing").first.locator("tbody tr").count() == 12


def test_data_of_a_page_are_valid_json(compared: Experiment) -> None:
    json.dumps(report_data(compared), allow_nan=False)
