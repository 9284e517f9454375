"""Figures of components: complete, from the component itself, the same each time, and an error that names what fails."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html import unescape
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from gptkit.core.component import Component
from gptkit.core.errors import GptkitError
from gptkit.core.hooks import hookimpl
from gptkit.core.registry import Registry
from gptkit.docs.figures.drawing import KINDS, figure
from gptkit.docs.figures.files import Files, WrittenFile
from gptkit.docs.figures.heat import Heat
from gptkit.docs.figures.kinds import corpora, engines
from gptkit.docs.figures.plot import Plot
from gptkit.docs.figures.strips import Strips
from gptkit.docs.figures.wiring import Wiring
from gptkit.docs.pages import pages
from gptkit.kinds.activation import ActivationSpec
from gptkit.kinds.context import BuildContext
from gptkit.kinds.tracker import Tracker, TrackerSpec
from gptkit.testing.texts import CORPUS
from tests.support.plugin_registry import registry_of


def svgs(html: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", html, re.DOTALL)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind == "format" else kind for kind in KINDS]
)
def test_every_component_has_a_figure(kind: str) -> None:
    registry = registry_of()
    assert registry.names(kind)
    for name, entry in registry.entries(kind).items():
        drawn = figure(entry.cls, registry)
        assert drawn is not None
        html = drawn.html()
        assert "\n\n" not in html, "Markdown would end the block"
        assert drawn.thumbnail().startswith('<svg class="fg" viewBox="0 0 120 72"'), name
        for svg in svgs(html):
            root = ElementTree.fromstring(svg)
            assert root.get("role") == "img"
            title, description = root.findtext("title"), root.findtext("desc")
            assert title
            assert description, f"{kind} {name}: {title}"
            assert not re.search(r"\bnan\b|\binf\b", svg), f"{kind} {name}"
            assert float(root.get("width") or 0) <= 340, "wider than a phone"
        ids = re.findall(r' id="([^"]+)"', html)
        assert len(ids) == len(set(ids))


def test_figures_have_no_colors_of_their_own(builtin: Registry) -> None:
    for kind in ("norm", "router", "decoding", "tokenizer"):
        for entry in builtin.entries(kind).values():
            drawn = figure(entry.cls, builtin)
            assert drawn is not None
            assert not re.search(r"#[0-9a-f]{3,6}\b|rgb\(|style=", unescape(drawn.html()).replace("#", "# "))


def test_equal_components_give_equal_bytes(builtin: Registry) -> None:
    for kind, name in (("attention", "multi-head"), ("optimizer", "sgd"), ("router", "softmax-top-k"), ("sampler", "xtc")):
        cls = builtin.component(kind, name)
        torch.manual_seed(5)
        again = figure.__wrapped__(cls, builtin)
        first = figure(cls, builtin)
        assert first is not None
        assert again is not None
        assert first.html() == again.html()


def test_component_of_a_plugin_has_the_figure_of_its_kind(with_plugins: Registry) -> None:
    written = pages(with_plugins, kinds=["norm"])
    page = written["components/norm/halving.md"]
    assert '<figure class="fg-figure"' in page
    assert "Three vectors of 24 features" in page
    before, after = page.split('fg-panel">')[1:3]
    values = [re.findall(r"rms [\d.]+, mean [-\d.]+", panel) for panel in (before, after)]
    assert values[0] == values[1] != [], "the module of the test changes nothing"
    index = written["components/norm/index.md"]
    row = next(line for line in index.splitlines() if line.startswith("| [halving]"))
    assert "<svg" in row


def test_curve_is_that_of_the_module(builtin: Registry) -> None:
    class DoublingSpec(ActivationSpec):
        """Twice the input."""

        name: Literal["doubling"] = "doubling"

        def build(self, context: BuildContext) -> nn.Module:
            return _Doubling()

    drawn = figure(DoublingSpec, builtin)
    assert drawn is not None
    assert "f(x) from -8.00 to 8.00; its derivative from 2.00 to 2.00." in drawn.html()


class _Doubling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_a_figure_that_fails_names_the_component(builtin: Registry) -> None:
    class BrokenSpec(ActivationSpec):
        """Broken."""

        name: Literal["broken"] = "broken"

        def build(self, context: BuildContext) -> nn.Module:
            raise RuntimeError("no such kernel")

    with pytest.raises(
        GptkitError, match=r"the figure of activation broken could not be drawn: RuntimeError: no such kernel"
    ):
        figure(BrokenSpec, builtin)


def test_kinds_of_plugins_have_no_figure(with_plugins: Registry) -> None:
    cls: type[Component] = with_plugins.component("paint", "plain")
    assert figure(cls, with_plugins) is None


def test_every_built_in_kind_has_figures(builtin: Registry) -> None:
    assert set(KINDS) == set(builtin.kinds())


def test_warnings_about_what_is_drawn_are_omitted(caplog: pytest.LogCaptureFixture) -> None:
    drawn = figure.__wrapped__(registry_of().component("callback", "skip-spikes"), registry_of())
    assert drawn is not None
    assert "steps are skipped" in drawn.html()
    assert not caplog.records


def test_engine_shares_its_steps() -> None:
    registry = registry_of()
    drawn = figure(registry.component("engine", "native"), registry)
    assert drawn is not None
    (strips,) = [panel for panel in drawn.panels if isinstance(panel, Strips)]
    given = [[run for run in runs if run.color] for _, runs in strips.rows]
    assert [len(runs) for runs in given] == [tokens for _, _, tokens in engines._REQUESTS]
    for step in range(max(int(run.end) for runs in given for run in runs)):
        assert sum(run.begin == step for runs in given for run in runs) <= engines.MAX_BATCH
    assert any(run.color == 0 for _, runs in strips.rows for run in runs), "no request waits"


def test_modules_that_layers_share_are_boxes(builtin: Registry) -> None:
    """The block does not register them, but their operations are not those of the block."""
    drawn = figure(builtin.component("block", "shared-branch"), builtin)
    assert drawn is not None
    (wiring,) = drawn.panels
    assert isinstance(wiring, Wiring)
    names = [box.name for box in wiring.boxes]
    assert names == ["x", "concatenate", "branch", "output", "+", "attention_norm", "attention", "+", "x"]


def test_attention_to_chosen_blocks_shows_them(builtin: Registry) -> None:
    drawn = figure(builtin.component("attention", "block-sparse"), builtin)
    assert drawn is not None
    pattern, windowed, _ = drawn.panels
    assert isinstance(pattern, Heat)
    assert isinstance(windowed, Heat)
    assert "block_size 2, top_blocks 3, local_blocks 1" in drawn.caption
    local, best = pattern.outlined
    assert [row for row, _, _ in local.groups] == list(range(16)), "each query attends to its own block"
    assert all(first == row // 2 * 2 for row, first, _ in local.groups)
    for query in range(16):
        chosen = [(first, count) for row, first, count in best.groups if row == query]
        assert len(chosen) == min(2, query // 2)
        assert all(first % 2 == 0 and count == 2 and first < query // 2 * 2 for first, count in chosen)
    inside = {(row, first + at) for each in pattern.outlined for row, first, count in each.groups for at in range(count)}
    shown = {(row, at) for row, values in enumerate(pattern.rows) for at, value in enumerate(values) if value}
    assert shown == inside != {(row, at) for row in range(16) for at in range(row + 1)}
    assert all(row - at < 5 for row, values in enumerate(windowed.rows) for at, value in enumerate(values) if value)


@pytest.mark.parametrize(
    ("name", "through", "chosen"),
    [
        ("compressed", "through the blocks that stand for them", True),
        ("convolutional", "through keys and values that contain them", False),
    ],
)
def test_influence_beyond_the_window_is_explained(name: str, through: str, chosen: bool) -> None:
    registry = registry_of()
    drawn = figure(registry.entries("attention")[name].cls, registry)
    assert drawn is not None
    assert through in drawn.caption
    assert ("keys that are not chosen are empty" in drawn.caption) is chosen


def test_attention_to_chosen_keys_shows_their_number(builtin: Registry) -> None:
    drawn = figure(builtin.component("attention", "sparse-latent"), builtin)
    assert drawn is not None
    pattern = drawn.panels[0]
    assert isinstance(pattern, Heat)
    assert [sum(bool(value) for value in row) for row in pattern.rows] == [min(5, query + 1) for query in range(16)]


def test_corpus_shows_its_documents(builtin: Registry) -> None:
    drawn = figure(builtin.component("data", "jsonl"), builtin)
    assert drawn is not None
    windows, documents = drawn.panels
    assert isinstance(windows, Strips)
    assert {sum(run.end - run.begin for run in runs) for _, runs in windows.rows} == {corpora.T}
    assert max(len(runs) for _, runs in windows.rows) > 1
    assert isinstance(documents, Plot)
    lengths = [y for series in documents.series for _, y in series.points]
    assert sum(lengths) == sum(len(text.encode()) for text in CORPUS[2:]) + len(lengths), "bytes, and an end token each"


def test_files_of_a_tracker_and_of_a_format() -> None:
    registry = registry_of()
    drawn = figure(registry.component("tracker", "csv"), registry)
    assert drawn is not None
    assert "step,loss,learning_rate" in drawn.html()
    drawn = figure(registry.component("format", "hugging-face"), registry)
    assert drawn is not None
    files = drawn.panels[0]
    assert isinstance(files, Files)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in files.files}


def test_long_names_of_files_are_cut() -> None:
    svg = Files("f", [WrittenFile("a" * 90 + ".safetensors", 2_500_000)], "d").draw("k")
    assert "…" in svg
    assert ".safetensors" in svg
    assert "2.5 MB" in svg


def test_component_of_a_plugin_that_lacks_something_outside_has_no_figure(builtin: Registry) -> None:
    class RemoteTracker(TrackerSpec):
        """Needs a server."""

        name: Literal["remote"] = "remote"

        def build(self) -> Tracker:
            raise ConnectionError("no server")

    class Plugin:
        """The plugin."""

        __name__ = "remote.plugin"

        @hookimpl
        def gptkit_components(self) -> list[type[Component]]:
            return [RemoteTracker]

    assert figure(RemoteTracker, registry_of(remote=Plugin)) is None


@pytest.mark.parametrize("name", ["extra.css", "site.css"])
def test_rules_of_style_sheets_are_complete(name: str) -> None:
    """A rule without its end would hold all rules below it, and figures would be black."""
    text = (Path(__file__).resolve().parents[2] / "docs" / name).read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    outer = re.sub(r"\{[^{}]*\}", ";", text)
    outer = re.sub(r"@media[^{}]*\{[^{}]*\}", ";", outer)
    assert "{" not in outer
    assert "}" not in outer
