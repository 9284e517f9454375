"""Write the placeholders of generated pages that handwritten files link, and remove those that none links any more."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gptkit.docs.placeholders import is_placeholder, linked, placeholder  # noqa: E402

DOCS = ROOT / "docs"


def needed() -> dict[str, str]:
    """Return the placeholders by path in docs/: one for each linked path that is not a handwritten file."""
    paths = set()
    for page in [ROOT / "README.md", *DOCS.rglob("*.md"), *(ROOT / "plugins").rglob("*.md")]:
        if is_placeholder(page):
            continue
        for target in linked(page.read_text(encoding="utf-8")):
            file = (page.parent / target).resolve()
            if file.is_relative_to(DOCS) and (not file.exists() or (file.is_file() and is_placeholder(file))):
                paths.add(file.relative_to(DOCS).as_posix())
    return {path: placeholder(path) for path in sorted(paths)}


def present() -> dict[str, str]:
    """Return the placeholders in docs/ by path."""
    files = [file for pattern in ("*.md", "*.html") for file in DOCS.rglob(pattern) if is_placeholder(file)]
    return {file.relative_to(DOCS).as_posix(): file.read_text(encoding="utf-8") for file in files}


def main() -> None:
    """Write, and remove."""
    wanted = needed()
    for path in present().keys() - wanted.keys():
        (DOCS / path).unlink()
    for path, text in wanted.items():
        (DOCS / path).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / path).write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(wanted)} placeholders\n")


if __name__ == "__main__":
    main()
