"""Take the screenshots of the documentation from the built site: ``make docs screenshots``.

``python tools/screenshots.py site`` writes three files to ``docs/images``: the spec builder, the report of an experiment,
and the comparison of two models. Chromium is required, as in the tests of pages.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
CHROMIUM = "/usr/bin/chromium"
SIZE = {"width": 1120, "height": 700}
SHOW_DIAGRAM = """() => {
    document.querySelector(".sb-text").open = false;
    scrollTo(0, document.querySelector("#gptkit-builder").getBoundingClientRect().top - 64);
}"""


def take(address: str, image: Path, script: str | None = None) -> None:
    """Save a screenshot of the upper part of a page, after a script if one is given. A palette halves the file."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]
        page.goto(address)
        if script is not None:
            page.evaluate(script)
            page.wait_for_timeout(300)
        page.screenshot(path=image)
        browser.close()
    with Image.open(image) as picture:
        picture.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
            image, optimize=True
        )


def main(site: Path) -> None:
    """Take all screenshots."""
    take((site / "spec-builder.html").resolve().as_uri() + "#preset=tiny", IMAGES / "spec-builder.png", SHOW_DIAGRAM)
    take((site / "effects" / "positions.html").resolve().as_uri(), IMAGES / "report.png")
    with tempfile.TemporaryDirectory() as directory:
        page = Path(directory) / "diff.html"
        subprocess.run([sys.executable, "-m", "gptkit", "diff", "gpt2", "qwen3-0.6b", "--html", page], check=True)
        take(page.as_uri(), IMAGES / "diff.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
