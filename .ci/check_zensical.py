"""Build the site with Zensical, which runs no hooks of mkdocs, and check all links, images and scripts of the result.

    python .ci/check_zensical.py DIRECTORY

writes the project into an empty directory, builds it there with the zensical of the same environment, and exits with
status 1 if a page is missing or an address within the site does not exist.
"""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit


class Page(HTMLParser):
    """Addresses and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.anchors: set[str] = set()
        self.colons = "<p>::</p>" in text  # reStructuredText in a docstring
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := given.get(name))}
        if tag in ("a", "img", "script", "link", "source", "iframe"):
            self.addresses += [value for name in ("href", "src") if (value := given.get(name))]


def broken(site: Path) -> list[str]:
    """Return the addresses within a site that do not exist."""
    files = [path.resolve() for path in site.rglob("*.html") if path.name != "404.html"]
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in files}
    problems = []
    for path, page in pages.items():
        if page.colons:
            problems.append(f"{path.relative_to(site.resolve())}: a paragraph of double colons")
        for address in page.addresses:
            plain, anchor = urldefrag(address)
            parts = urlsplit(plain)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            state = anchor.startswith("preset=")  # of a page's script
            if not target.is_file():
                problems.append(f"{path.relative_to(site.resolve())}: {address}")
            elif anchor and not state and target in pages and unquote(anchor) not in pages[target].anchors:
                problems.append(f"{path.relative_to(site.resolve())}: {address} (no such anchor)")
    return problems


def main(directory: Path) -> int:
    """Write, build and check the project; return the exit status."""
    from gptkit.core.registry import default_registry
    from gptkit.docs.site import write_project

    directory.mkdir(parents=True, exist_ok=True)
    write_project(directory, default_registry())
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean"], cwd=directory, capture_output=True, text=True, check=False
    )
    sys.stdout.write(done.stdout + done.stderr)
    site = directory / "site"
    if done.returncode or not site.is_dir():
        return 1
    sources = {path.relative_to(directory / "docs").with_suffix("") for path in (directory / "docs").rglob("*.md")}
    missing = [
        name for name in sorted(sources)
        if not (site / f"{name}.html").is_file() and not (site / name / "index.html").is_file()
    ]  # fmt: skip
    problems = [f"no page was built from {name}.md" for name in missing] + broken(site)
    sys.stdout.write("".join(f"{problem}\n" for problem in problems[:50]))
    sys.stdout.write(f"{len(sources)} pages, {len(problems)} problems\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
