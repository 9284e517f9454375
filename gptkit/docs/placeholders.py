"""Placeholders in docs/ of pages that only a build generates, so that links lead somewhere in a clone and on a code host.

A build removes them. `tools/placeholders.py` writes one for each generated page that a handwritten file links.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["MARK", "is_placeholder", "linked", "placeholder"]

MARK = "<!-- Placeholder of a generated page. -->"
_LINK = re.compile(r"""\]\(<?([^)\s>]+)>?(?: "[^"]*")?\)|(?:href|src)=["']([^"']+)["']""")
_SCHEME = re.compile(r"[a-z]+:|#|/")


def is_placeholder(file: Path) -> bool:
    """Return whether a file is a placeholder, by its first line."""
    if file.suffix not in (".md", ".html"):
        return False
    with file.open(encoding="utf-8", errors="replace") as stream:
        return stream.readline().rstrip() == MARK


def linked(text: str) -> Iterator[str]:
    """Yield the relative paths that a page links, without their anchors."""
    for markdown, html in _LINK.findall(re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)):
        target = markdown or html
        if not _SCHEME.match(target):
            yield re.split("[#?]", target)[0]


def placeholder(path: str) -> str:
    """Return the placeholder of a page: what the page is, and how to read it.

    Args:
        path: of the page in docs/, such as ``components/norm/rms.md``.
    """
    page = PurePosixPath(path)
    parts = page.with_suffix("").parts
    title, command = " ".join(parts[-1:]).replace("-", " ").capitalize(), ""
    if parts[0] == "components":
        names = [part for part in parts[1:] if part != "index"]
        title = " ".join(["Component" if len(names) > 1 else "Kind" if names else "Components", *names])
        command = " ".join(["gptkit components", *names])
    if page.suffix == ".html":
        return (
            f"{MARK}\n<title>{title}</title>\n<p>This report is generated from {page.stem}.json: "
            "<code>make serve</code> in a clone builds the documentation and serves it on this machine.</p>\n"
        )
    lines = [
        MARK,
        f"# {title}",
        "This page is generated from the code, by a build of the documentation. To read it, run in a clone:",
        "```text\nmake serve          # builds the documentation and serves it on this machine\n```",
    ]
    if command:
        lines.append(f"In a terminal, with gptkit installed, `{command}` prints its content.")
    return "\n\n".join(lines).replace(f"{MARK}\n\n", f"{MARK}\n", 1) + "\n"
