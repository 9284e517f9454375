"""The site built by mkdocs in strict mode: all pages, valid links, no external resources."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

from gptkit.core.registry import default_registry

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_every_component_has_a_page(site: Path) -> None:
    registry = default_registry()
    for kind in registry.kinds():
        for name in registry.names(kind):
            assert f">{name}<" in (site / "components" / kind / f"{name}.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_pages_load_nothing_from_other_servers(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loads = re.findall(r"""<(?:script|img|iframe|source)[^>]+src=["']?(https?:)?//""", text)
        loads += re.findall(
            r"""<link[^>]+rel=["']?(?:stylesheet|preconnect|icon|preload)[^>]+href=["']?(?:https?:)?//""", text
        )
        assert not loads, page


@pytest.mark.slow
def test_the_site_opens_from_the_file_system(site: Path) -> None:
    # The 404 page is for servers, which may return it for any address.
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > 100
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"""\s(?:href|src)=["']?([^"'\s>]+)""", text):
            if re.match(r"[a-z]+:|#", target):
                continue
            file = page.parent / unquote(target.partition("#")[0].partition("?")[0])
            assert file.is_file(), f"{page.relative_to(site)}: {target}"
        if page.relative_to(site).parts[0] != "effects":  # reports of experiments, which are complete pages themselves
            assert "assets/iframe-worker.js" in text
    assert (site / "search/search_index.js").read_text(encoding="utf-8").startswith("var __index = {")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_serves_the_documentation() -> None:
    done = subprocess.run(["make", "-n", "serve"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "gptkit docs serve --address 127.0.0.1:8000" in done.stdout


def test_cells_with_a_number_and_its_unit_are_marked() -> None:
    pytest.importorskip("mkdocs")
    from gptkit.docs.mkdocs_hook import on_page_content

    numbers = ("1,112 ms", "0.93", "38 %", "182 tokens/s", "-3", "7.4e-07")
    for text in numbers:
        assert on_page_content(f"<td>{text}</td>") == f'<td class="number">{text}</td>'
    style = '<td style="text-align: right;">5</td>'
    assert on_page_content(style) == '<td class="number" style="text-align: right;">5</td>'
    for text in ("4 heads of any size", "GPT-2", "124M, context 1024", "1.020 (1.004-1.029)"):
        assert on_page_content(f"<td>{text}</td>") == f"<td>{text}</td>"
