"""What `.ci/run` checks of the site built with Zensical."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_zensical", ROOT / ".ci" / "check_zensical.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_addresses_that_do_not_exist_are_reported(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "index.html").write_text('<h2 id="one">1</h2><a href="deep/b.html#two">b</a><a href="#one">1</a><p>::</p>')
    (tmp_path / "deep" / "b.html").write_text(
        '<h2 id="two">2</h2><a href="../index.html#three">a</a><img src="c.png"><a href="https://example.org">e</a>'
    )
    assert sorted(script.broken(tmp_path)) == [
        "deep/b.html: ../index.html#three (no such anchor)",
        "deep/b.html: c.png",
        "index.html: a paragraph of double colons",
    ]


def test_double_colons_of_docstrings_are_removed() -> None:
    markdown = pytest.importorskip("markdown", reason="comes with the extra `docs`")
    text = "Use it::\n\n    a::b\n\nOr\n\n::\n\n    c\n\nA name::\n\nText."
    html = markdown.markdown(text, extensions=["gptkit.docs.literal_blocks"])
    assert html == (
        "<p>Use it:</p>\n<pre><code>a::b\n</code></pre>\n<p>Or</p>\n<pre><code>c\n</code></pre>\n"
        "<p>A name::</p>\n<p>Text.</p>"
    )
