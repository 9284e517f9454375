"""Headless Chromium for tests of pages; they are skipped where it is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def browser_page(*, width: int = 1280, dark: bool = False, expected: str | None = None) -> Iterator[Any]:
    """A page of a browser; errors of its scripts and violations of its content security policy fail the test.

    Args:
        width: width of the window.
        dark: the system's color scheme.
        expected: a part of errors that the test provokes.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"{CHROMIUM} is not installed")
    problems: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(_ARGUMENTS))
        try:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
            page = context.new_page()
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            yield page
        finally:
            browser.close()
    assert not [problem for problem in problems if expected is None or expected not in problem]
