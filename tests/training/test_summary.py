"""Summary and page of a training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.kinds.tracker import TrainingStart
from gptkit.training.metrics import Metrics
from gptkit.training.page import TrainingPage
from gptkit.training.rate import product_rate
from gptkit.training.series import Series
from gptkit.training.summary import summarize
from tests.support.browser import browser_page


def test_series_keeps_means_over_equal_numbers_of_points() -> None:
    values = [math.sin(step / 7) for step in range(1000)]
    series = Series(limit=16)
    for step, value in enumerate(values):
        series.add(step, value)
    points = series.points()
    assert len(points) <= 17
    assert points[-1][0] == 999
    before = -1
    for step, mean in points:
        own = values[before + 1 : step + 1]
        assert mean == pytest.approx(sum(own) / len(own), abs=1e-12)
        before = step


def test_summary_is_computed_from_the_metrics() -> None:
    lines = {
        "step": [0, 10, 20, 30],
        "loss": [math.nan, 3.0, 2.0, 1.5],
        "tokens": [math.nan, 1000, 2000, 4000],
        "tokens_per_second": [math.nan, 100, 200, 400],
        "validation_loss": [4.0, math.nan, 1.75, 1.8],
        "validation_bits_per_byte": [5.0, math.nan, 2.5, 2.6],
    }
    summary = summarize(Metrics(lines), 30, flops_per_token=1e6, product_rate=1e9)
    assert (summary.tokens, summary.seconds) == (4000, 1000 / 100 + 1000 / 200 + 2000 / 400)
    assert (summary.best_validation_loss, summary.best_step, summary.validation_bits_per_byte) == (1.75, 20, 2.5)
    assert summary.loss == 1.5
    assert summary.flops == 4e9
    assert summary.utilization == pytest.approx(4e9 / 20 / 1e9)
    assert summary.lines() == [
        "lowest validation loss 1.7500 at step 20 (2.500 bits per byte)",
        "4,000 tokens in 20.0 s, 200 tokens/s",
        "4.00e+09 FLOPs, 0 GFLOP/s: 20% of the 1 GFLOP/s of a large matrix product",
    ]
    assert summarize(Metrics({}), 0).lines() == []


def test_product_rate_is_that_of_a_product() -> None:
    assert 1e8 < product_rate(torch.device("cpu"), torch.float32, seconds=0.05) < 1e14


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> gptkit.Run:
    directory = tmp_path_factory.mktemp("summary")
    (directory / "text.txt").write_text("one fish two fish\n" * 200, encoding="utf-8")
    training = {"steps": 6, "batch_size": 2, "log_every": 2, "evaluate_every": 3, "sample_tokens": 0, "callbacks": ["norms"]}
    spec: dict[str, Any] = {
        "name": "fish <b>",
        "tokenizer": "byte",
        "model": {"d_model": 16, "n_layers": 1, "context_length": 16},
        "data": {"name": "text", "path": str(directory / "text.txt")},
        "training": training,
    }
    return gptkit.train(spec, directory / "run", progress=False)


def test_run_has_a_summary_and_bits_per_byte(run: gptkit.Run) -> None:
    summary = json.loads((Path(run.directory) / "summary.json").read_text(encoding="utf-8"))
    assert summary["steps"] == 6
    assert summary["tokens"] == 6 * 2 * 16
    best = run.metrics.best("validation_loss")
    assert best == (summary["best_step"], summary["best_validation_loss"])
    # A token of the byte tokenizer is a byte, and the corpus is one document without special tokens but its last.
    bits = run.metrics.last("validation_bits_per_byte")
    assert bits is not None
    measured = run.evaluate()
    assert set(measured) >= {"bits_per_byte"}
    for (step, loss), (other, per_byte) in zip(
        run.metrics.points("validation_loss"), run.metrics.points("validation_bits_per_byte"), strict=True
    ):
        assert step == other
        assert per_byte == pytest.approx(loss / math.log(2), rel=0.05)


def test_page_shows_the_curves(run: gptkit.Run) -> None:
    with browser_page(width=390) as page:
        page.goto((Path(run.directory) / "training.html").as_uri())
        assert page.inner_text("h1") == "fish <b>"
        assert "6 / 6" in page.inner_text(".facts")
        titles = page.locator("h2").all_inner_texts()
        assert titles[0] == "Loss (nats per token)"
        assert "Bits per byte (validation)" in titles
        assert page.locator("section").first.locator("polyline").count() == 2
        last = run.metrics.last("loss")
        assert last is not None
        assert f"{last[1]:.3f}" in page.inner_text(".facts")
        plot = page.locator("section svg").first
        plot.focus()
        plot.press("Home")
        assert "step 0" in page.locator("section .readout").first.inner_text()
        page.get_by_label("logarithmic").check()
        page.get_by_label("horizontal axis").select_option("tokens")
        assert "tokens 192" in page.locator("section .readout").first.inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_page_is_written_while_the_training_runs(tmp_path: Path) -> None:
    page = TrainingPage(tmp_path / "metrics.jsonl", tmp_path / "page.html", "a run", interval=0)
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "loss": 2.5}\n', encoding="utf-8")
    page.on_start(TrainingStart(tmp_path, 5, 20, {}))
    page.on_metrics(10, {"loss": 1.25})
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '"state":"running"' in text
    assert '"loss":[[5,2.5],[10,1.25]]' in text
    page.on_end(10, KeyboardInterrupt())
    assert '"state":"stopped"' in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_page_that_cannot_be_written_does_not_end_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    page = TrainingPage(tmp_path / "metrics.jsonl", tmp_path / "missing" / "page.html", "a run", interval=0)
    page.on_start(TrainingStart(tmp_path, 0, 20, {}))
    page.on_metrics(1, {"loss": 1.0})
    assert "cannot be written" in caplog.text


def test_page_of_the_documentation_names_every_metric(run: gptkit.Run) -> None:
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    for name in run.metrics:
        assert f"`{name.partition('/')[0]}" in text, name
