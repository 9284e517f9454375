"""Metrics as columns, plots, and representations in a notebook."""

from __future__ import annotations

import math
import sys
import zlib
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import gptkit
from gptkit.core.errors import GptkitError, RequirementError
from gptkit.files import read, validate
from gptkit.runs.spec import ExperimentSpec
from gptkit.training.metrics import Metrics

SPEC = {
    "name": "a <b>",
    "tokenizer": "byte",
    "model": {"context_length": 24, "d_model": 16, "n_layers": 2, "attention": {"n_heads": 2}},
    "training": {"steps": 4, "batch_size": 2, "log_every": 1, "evaluate_every": 2, "sample_tokens": 0, "device": "cpu"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> gptkit.Run:
    directory = tmp_path_factory.mktemp("views")
    (directory / "corpus.txt").write_text("the cat sat on the mat " * 80)
    data = {"name": "text", "path": str(directory / "corpus.txt")}
    return gptkit.train({**SPEC, "data": data}, directory / "run", progress=False)


class _Balanced(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags(html: str) -> set[str]:
    """Return the tags of HTML, whose elements must be closed in order."""
    parser = _Balanced()
    parser.feed(html)
    assert parser.open == []
    return parser.seen


def test_metrics_are_columns_by_step(run: gptkit.Run) -> None:
    metrics = run.metrics
    assert metrics["step"] == [0, 1, 2, 3, 4]
    assert math.isnan(metrics["loss"][0])
    assert len({len(column) for column in metrics.values()}) == 1
    assert [step for step, _ in metrics.points("validation_loss")] == [0, 2, 4]
    assert metrics.last("validation_loss") == (4, metrics["validation_loss"][-1])
    best = metrics.best("loss")
    assert best is not None
    assert best[1] == min(value for value in metrics["loss"] if not math.isnan(value))
    assert (metrics.last("absent"), metrics.points("absent")) == (None, [])
    assert tags(metrics._repr_html_()) == {"div", "span", "table", "tr", "th", "td"}


def test_metrics_are_a_table_of_pandas(run: gptkit.Run) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(run.metrics)
    assert list(table["step"]) == [0, 1, 2, 3, 4]
    assert table["loss"].dtype == float


def test_metrics_of_a_run_without_records_are_empty(tmp_path: Path, run: gptkit.Run) -> None:
    saved = gptkit.load(run.save(tmp_path / "copy"))
    assert saved.metrics == Metrics()
    assert "0 steps" in repr(saved.metrics)
    assert "0 steps" in saved.metrics._repr_html_()
    assert saved.plot().axes


def test_the_plot_has_both_losses(run: gptkit.Run, tmp_path: Path) -> None:
    figure = run.plot()
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [4, 3]
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    figure.savefig(tmp_path / "loss.svg")
    assert (tmp_path / "loss.svg").stat().st_size > 1000


def test_plot_without_matplotlib_names_the_package(run: gptkit.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "gptkit.training.plot", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for plot in (run.plot, lambda: run.attention("cat").figure(0)):
        with pytest.raises(RequirementError, match="matplotlib") as caught:
            plot()
        assert caught.value.hint == "Run: pip install matplotlib"


def test_a_spec_is_printed_as_yaml_that_loads_back_equal(run: gptkit.Run, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(repr(run.spec))
    assert validate(read(tmp_path / "spec.yaml"), ExperimentSpec) == run.spec
    assert repr(run.spec.model.norm).startswith("{name: ")
    assert "\n" in repr(run.spec.training)
    assert f"{run.spec.model.norm}" == repr(run.spec.model.norm)


def test_html_of_run_model_and_spec_is_escaped_and_complete(run: gptkit.Run) -> None:
    html = run._repr_html_()
    assert "a &lt;b&gt;" in html
    assert "validation loss" in html
    assert tags(html) >= {"table", "details", "pre"}
    assert f"{sum(p.numel() for p in run.model.parameters()):,} parameters" in run.model._repr_html_()
    assert tags(run.model._repr_html_()) >= {"pre"}
    assert "context_length: 24" in run.spec._repr_html_()


def test_attention_maps_are_the_weights_of_the_model(run: gptkit.Run) -> None:
    text = "the <cat>\n"
    maps = run.attention(text)
    ids = run.tokenizer.encode(text)
    assert maps.tokens == list(text)
    expected = run.model.attention_weights(torch.tensor([ids]))
    assert list(maps.weights) == [(0, 0), (1, 0)]
    assert torch.equal(maps.weights[1, 0], expected[1, 0][0])
    overview = maps._repr_html_()
    assert overview.count("<img") == 4
    assert tags(overview) >= {"img"}
    one = maps.html(layer=1, head=1)
    assert f'title="a → t: {float(maps.weights[1, 0][1, 6, 0]):.3f}"' in one
    assert "&lt;" in one
    assert "<cat" not in one
    assert tags(one) >= {"table"}
    figure = maps.figure(1, 1)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()][-1] == "⏎"
    assert "4 tokens" not in repr(maps)


def test_a_map_has_one_pixel_per_weight(run: gptkit.Run) -> None:
    maps = run.attention("cat")
    data = b64decode(maps._repr_html_().split("base64,")[1].split('"')[0])
    length = int.from_bytes(data[33:37], "big")
    lines = zlib.decompress(data[41 : 41 + length])
    rows = [lines[at + 1 : at + 13] for at in range(0, len(lines), 13)]
    alphas = torch.tensor([[row[4 * column + 3] for column in range(3)] for row in rows]) / 255
    assert torch.allclose(alphas**2, maps.weights[0, 0][0], atol=0.01)


def test_attention_map_that_does_not_exist_is_an_error(run: gptkit.Run) -> None:
    maps = run.attention("cat")
    with pytest.raises(GptkitError, match=r"layer 5, call 0 has no attention weights"):
        maps.html(5)
    with pytest.raises(GptkitError, match="layer 0 has no head 2"):
        maps.html(0, 2)


def test_a_model_without_attention_weights_has_no_maps(tmp_path: Path, run: gptkit.Run) -> None:
    from gptkit.inspection.attention import attention_maps

    spec = {"d_model": 16, "n_layers": 1, "attention": {"name": "gated-delta", "n_heads": 2}, "position": "none"}
    with pytest.raises(GptkitError, match="no layer of the model has attention weights"):
        attention_maps(gptkit.GPT(spec, vocab_size=run.tokenizer.vocab_size), run.tokenizer, [1, 2, 3])
