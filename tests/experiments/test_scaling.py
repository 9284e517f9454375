"""Ladders of sizes: fit, prediction, report."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest

from gptkit.core.errors import GptkitError
from gptkit.experiments.results import Experiment
from gptkit.experiments.scaling import Scaling, analyze, default_sizes
from gptkit.experiments.scaling_report import scaling_data, statements, write_scaling_report
from tests.support.browser import browser_page
from tests.support.experiments import experiment

PARAMETERS = {"64x1": 150_000, "96x2": 320_000, "128x2": 560_000, "192x3": 1_500_000, "256x4": 3_600_000}


def _ladder(*, checked: bool = True, failing: str | None = None, sizes: tuple[str, ...] = tuple(PARAMETERS)) -> Experiment:
    draw = random.Random(3)

    def loss(choices: object, seed: int, size: str | None, rate: float | None) -> float | str | None:
        if size == "256x4" and not checked:
            return None
        if size == failing:
            return "memory ran out"
        return 2.1 + 40 * PARAMETERS[str(size)] ** -0.25 + draw.gauss(0, 0.005)

    made = experiment({}, loss, sizes=sizes)
    variants = [
        dataclasses.replace(each, parameters=PARAMETERS[str(each.size)], flops_per_token=2.0 * PARAMETERS[str(each.size)])
        for each in made.variants
    ]
    return dataclasses.replace(made, variants=tuple(variants))


def test_prediction_of_a_size_that_was_not_used_for_the_fit() -> None:
    result = analyze(_ladder(), "256x4")
    assert [point.label for point in result.ladder] == ["64x1", "96x2", "128x2", "192x3"]
    assert result.fit.has_floor
    assert result.error == pytest.approx(0, abs=0.02)
    assert result.covered
    assert result.backtest is not None
    assert analyze(_ladder(), "256x4", by="flops").prediction.mean == pytest.approx(result.prediction.mean, rel=1e-5)


def test_prediction_does_not_depend_on_the_measured_loss() -> None:
    checked, unchecked = (analyze(_ladder(checked=flag), "256x4") for flag in (True, False))
    assert checked.fit == unchecked.fit
    assert checked.prediction == unchecked.prediction
    assert unchecked.error is None
    assert unchecked.covered is None
    assert any("--check trains it" in text for text in statements(unchecked))


def test_failed_sizes_are_omitted_and_named() -> None:
    result = analyze(_ladder(failing="96x2"), "256x4")
    assert [point.label for point in result.ladder] == ["64x1", "128x2", "192x3"]
    assert not result.fit.has_floor
    assert result.omitted == {"96x2": "memory ran out"}


def test_too_few_sizes_are_an_error() -> None:
    with pytest.raises(GptkitError, match="2 sizes have results, and a fit needs 3"):
        analyze(_ladder(sizes=("64x1", "96x2", "256x4")), "256x4")
    with pytest.raises(GptkitError, match="3 sizes have results, and a fit needs 4"):
        analyze(_ladder(failing="96x2"), "256x4", floor=True)


def test_default_ladder_has_valid_widths() -> None:
    sizes = default_sizes("tiny", {})
    assert list(sizes) == ["64x1", "96x2", "128x2", "192x3"]
    # Six heads of an even size: widths are multiples of 24 here, since candidates are multiples of 8.
    heads = default_sizes("tiny", {"model.attention.n_heads": 6, "model.d_model": 240})
    assert all(size["model.d_model"] % 24 == 0 for size in heads.values())
    with pytest.raises(GptkitError, match="has no ladder of valid smaller widths"):
        default_sizes("tiny", {"model.d_model": 8, "model.attention.n_heads": 1})


@pytest.fixture
def result() -> Scaling:
    return analyze(_ladder(), "256x4")


def test_report_is_deterministic(result: Scaling, tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_scaling_report(result, tmp_path / name)
        written.append(
            {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        )
    assert written[0] == written[1]
    assert {"scaling.html", "scaling.md", "scaling/scaling.svg", "scaling/sizes.csv"} <= written[0].keys()
    text = written[0]["scaling.md"].decode()
    assert "Fitted law: loss = " in text
    assert "inside the interval" in text
    assert "| 256x4 (predicted) | 3,600,000 |" in text
    json.dumps(scaling_data(result), allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, True), (390, False)])
def test_page_in_a_browser(result: Scaling, tmp_path: Path, width: int, dark: bool) -> None:
    page_file = write_scaling_report(result, tmp_path)
    with browser_page(width=width, dark=dark) as page:
        page.goto(page_file.as_uri())
        plot = page.locator(".chart").first
        assert plot.locator("polyline").count() == 1
        assert plot.locator("circle").count() == 4 + 1 + 1
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
