"""Inspection of a text: attention, numbers, reports."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.components.tokenizer.byte import ByteTokenizer
from gptkit.core.errors import GptkitError
from gptkit.inspection.attention import attention_maps
from gptkit.inspection.inspect import Inspection, inspect_ids
from gptkit.pages.page import embedded
from gptkit.pages.report import check_report
from gptkit.pages.tokens import label, running
from tests.support.browser import browser_page

HOSTILE = "</script><img src=x onerror=alert(1)>\"&'\u202e\x1b[31m\0\tש\n\u2028é"
"""Text that a page must show and never interpret."""

LAYERS = [
    {"attention": {"name": "grouped-query", "n_heads": 4, "n_kv_heads": 2, "window": 4}},
    {"attention": {"name": "gated-delta", "n_heads": 2}, "position": "none"},
    {"attention": {"name": "latent", "n_heads": 2}},
]


def build(parts: dict[str, Any] | None = None) -> gptkit.GPT:
    spec = {"context_length": 64, "d_model": 16, "n_layers": 3, "layers": LAYERS, **(parts or {})}
    return gptkit.GPT(spec, vocab_size=256, seed=1).eval()


def look(text: str, model: gptkit.GPT | None = None, **options: Any) -> Inspection:
    tokenizer = ByteTokenizer()
    return inspect_ids(model or build(), tokenizer, tokenizer.encode(text), name="a <b>", **options)


def test_attention_equals_the_weights_of_the_model() -> None:
    model = build()
    view = look("the cat sat", model)
    assert view.attention is not None
    expected = model.attention_weights(torch.tensor([list(view.ids)]))
    assert list(view.attention.weights) == sorted(expected) == [(0, 0), (2, 0)]
    for key, weights in view.attention.weights.items():
        assert torch.equal(weights, expected[key][0])
    assert [(each.attention, each.calls, each.computes_weights) for each in view.layers] == [
        ("grouped-query", 1, True),
        ("gated-delta", 0, False),
        ("latent", 1, True),
    ]


def test_layers_can_be_chosen_and_attention_omitted() -> None:
    chosen = look("cat", layers=[2])
    assert chosen.attention is not None
    assert list(chosen.attention.weights) == [(2, 0)]
    assert [each.computes_weights for each in chosen.layers] == [None, None, True]
    without = look("cat", attention=False)
    assert without.attention is None
    assert {each.computes_weights for each in without.layers} == {None}


def test_limits_are_errors_with_a_remedy() -> None:
    with pytest.raises(GptkitError, match="has 65 tokens, and the model's context is 64"):
        look("a" * 65)
    with pytest.raises(GptkitError, match="has 9 tokens, and the limit is 8"):
        look("a" * 9, most_tokens=8)
    with pytest.raises(GptkitError, match="more than 100 numbers") as raised:
        look("a" * 9, most_weights=100)
    assert "--layers" in str(raised.value.hint)
    with pytest.raises(GptkitError, match="no layer 4"):
        look("a", layers=[4])
    with pytest.raises(GptkitError, match="none of the layers 1"):
        attention_maps(build(), ByteTokenizer(), [1, 2], layers=[1])


def test_bits_per_byte_count_the_bytes_after_the_first_token() -> None:
    view = look("aé")
    assert view.n_bytes == 2
    assert view.bits_per_byte == pytest.approx(sum(view.bits) / 2)
    assert view.tokens == ["a", "\\xc3", "\\xa9"]
    assert look("a").bits_per_byte is None


def test_json_has_the_documented_content(tmp_path: Path) -> None:
    view = look("the cat")
    view.save(tmp_path / "a.json")
    data = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert data["gptkit"] == "inspection"
    assert data["version"] == 1
    assert [token["text"] for token in data["tokens"]] == list("the cat")
    assert data["tokens"][0]["bits"] is None
    assert data["tokens"][3]["bits"] == pytest.approx(view.bits[2], rel=1e-5)
    assert len(data["lens"]) == 4
    best = data["lens"][2]["positions"][5]
    assert best["ids"] == list(view.lens.at(2, 5).ids)
    assert data["vocabulary"][str(best["ids"][0])]
    assert torch.tensor(data["attention"][1]["weights"]).shape == (2, 7, 7)


@pytest.mark.parametrize("name", ["a.html", "a.json"])
def test_only_reports_are_replaced(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("mine")
    with pytest.raises(GptkitError, match="exists and was not written by gptkit"):
        look("cat").save(path)
    assert path.read_text() == "mine"
    path.unlink()
    look("cat").save(path)
    look("dog").save(path)
    assert path.read_text(encoding="utf-8") != "mine"


def test_paths_are_checked_first(tmp_path: Path) -> None:
    (tmp_path / "d.html").mkdir()
    for name, message in {
        "a.txt": "written as .html or .json",
        "d.html": "is a directory",
        "n/a.html": "does not exist",
    }.items():
        with pytest.raises(GptkitError, match=message):
            check_report(tmp_path / name)


class _Scripts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


def test_hostile_text_stays_data() -> None:
    view = look(HOSTILE)
    parser = _Scripts()
    parser.feed(view.html())
    assert parser.tags.count("script") == 2
    assert "img" not in parser.tags
    assert "</" not in embedded({"a": HOSTILE})
    assert json.loads(embedded({"a": HOSTILE})) == {"a": HOSTILE}
    assert "<img" not in view._repr_html_()
    assert not re.search("[\u202e\x1b\0]", view._repr_html_() + view.html())
    assert label(" \n\t\u202e\x1b") == "·⏎⇥\\u202e\\x1b"
    assert running("a b\n\x1b") == "a b\n\\x1b"


def test_page_loads_nothing() -> None:
    html = look("the cat").html()
    assert "default-src 'none'" in html
    assert not re.search(r"https?://(?!www.w3.org/2000/svg)|@import|url\(", html)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_page_in_a_browser(tmp_path: Path, width: int, dark: bool) -> None:
    view = look(HOSTILE)
    view.save(tmp_path / "a.html")
    with browser_page(width=width, dark=dark) as page:
        page.goto((tmp_path / "a.html").as_uri())
        page.wait_for_selector(".heads button")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.querySelectorAll('img').length") == 0
        shown = page.locator(".text").first.inner_text()
        assert "</script><img" in shown
        assert "\\u{1b}" in shown.replace("\\x1b", "\\u{1b}")
        assert page.locator(".heads button").count() == 4 + 2
        assert "gated-delta computes no attention weights" in page.locator(".heads").inner_text()
        # By keyboard: the next token, then the next head.
        page.locator(".text .token").first.click()
        page.keyboard.press("ArrowRight")
        assert page.locator(".text .token.selected").first.get_attribute("aria-current") == "true"
        assert page.locator("section h2").nth(1).inner_text().startswith("Token 1")
        page.locator(".heads button").first.click()
        page.keyboard.press("ArrowRight")
        assert "head 1" in page.locator("canvas.map").get_attribute("aria-label")
        stored = page.evaluate("weights[0][(1 * n + 5) * n + 3]")
        assert view.attention is not None
        assert stored == pytest.approx(float(view.attention.weights[0, 0][1, 5, 3]), abs=0.004)
        page.locator('.lens [data-cell="1,3"]').click()
        assert "layer 0" in page.locator("section").nth(1).inner_text()
