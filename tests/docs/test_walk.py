"""Every page of the site in a browser: light and dark, wide and narrow, and without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import browser_page

ROOT = Path(__file__).resolve().parents[2]
MAIN = (
    *("index", "learn/index", "learn/attention", "how-to", "spec-files", "command-line", "glossary", "troubleshooting"),
    *("components/index", "components/attention/multi-head"),
)
"""Pages whose accessibility is checked."""
OVERFLOW = """() => {
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    const cut = [];
    for (const element of document.querySelectorAll(".md-content svg, .md-content img, .md-content math")) {
        const box = element.getBoundingClientRect();
        let frame = element.parentElement;
        while (frame && !["auto", "scroll"].includes(getComputedStyle(frame).overflowX)) frame = frame.parentElement;
        const out = box.right > innerWidth + 1 || box.left < -1;
        if (box.width && !frame && out) cut.push(element.tagName + " " + box.right);
    }
    return { wide, cut };
}"""

VIEWS = ((1280, "light", True), (390, "dark", False))
"""Widths and color schemes of every page, and whether it is loaded for them."""
ALSO = ((390, "dark", True), (390, "light", False), (1280, "dark", True))
"""Those of every fifth page."""

pytestmark = pytest.mark.slow
pytest.importorskip("mkdocstrings", reason="mkdocs and its plugins come with the extra `docs`")


def pages(site: Path, third: int) -> list[Path]:
    """Return a third of the pages; all pages of the guide belong to the first one."""
    generated, written = [], []
    for path in sorted(site.rglob("*.html")):
        if path.name != "404.html":
            (written if path.parent == site or path.parent.name == "learn" else generated).append(path)
    assert len(written) > 30
    assert len(generated) > 100
    return [*(written if third == 0 else []), *generated[third::3]]


@pytest.mark.parametrize("third", [0, *(pytest.param(third, marks=pytest.mark.nightly) for third in (1, 2))])
def test_pages_are_whole(site: Path, third: int) -> None:
    """From the file system: no error in the console, no request to another place, nothing wider than the window.

    A page is loaded on a light screen, which then becomes a dark phone; every fifth one is also loaded on that.
    """
    problems: list[str] = []
    with browser_page() as page:
        page.on("request", lambda request: _outside(request.url, site, problems))
        page.on("requestfailed", lambda request: _failed(request, problems))
        for number, path in enumerate(pages(site, third)):
            views = (*VIEWS, *ALSO) if number % 5 == 0 else VIEWS
            for width, scheme, is_loaded in views:
                page.set_viewport_size({"width": width, "height": 900})
                page.emulate_media(color_scheme=scheme)
                if is_loaded:
                    page.goto(path.as_uri())
                seen = page.evaluate(OVERFLOW)
                if seen["wide"] > 0 or seen["cut"]:
                    problems.append(f"{path.relative_to(site)}, {scheme} at {width}: {seen}")
    assert not problems, "\n".join(problems[:40])


def _outside(url: str, site: Path, problems: list[str]) -> None:
    if not url.startswith((site.as_uri(), "data:", "blob:")):
        problems.append(f"a request leaves the site: {url}")


def _failed(request: Any, problems: list[str]) -> None:
    if request.failure != "net::ERR_ABORTED":  # the next page was opened before an icon was loaded
        problems.append(f"{request.url}: {request.failure}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_main_pages_are_accessible(site: Path, dark: bool) -> None:
    axe: Any = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed").Axe()
    serious: list[str] = []
    with browser_page(dark=dark) as page:
        for name in MAIN:
            page.goto((site / f"{name}.html").as_uri())
            # Preloading reads style sheets by requests, which a browser refuses for files.
            for violation in axe.run(page, options={"preload": False}).response["violations"]:
                if violation["impact"] in ("serious", "critical"):
                    nodes = "; ".join(node["html"][:120] for node in violation["nodes"][:3])
                    serious.append(f"{name}: {violation['id']}: {nodes}")
    assert not serious, "\n".join(serious)


def test_figures_have_the_colors_of_the_page(site: Path) -> None:
    fills = """() => [...document.querySelectorAll(".md-content svg.fg .fg-h")].map((each) => getComputedStyle(each).fill)"""
    with browser_page() as page:
        page.goto((site / "components/attention/multi-head.html").as_uri())
        colors = page.evaluate(fills)
    assert colors
    assert "rgb(0, 0, 0)" not in colors
