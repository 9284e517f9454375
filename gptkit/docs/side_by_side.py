"""Two specs side by side: their diagrams, with the parts that differ outlined, and a table of the differences."""

from __future__ import annotations

from typing import Any

from gptkit.core.diff import ABSENT, differences
from gptkit.core.registry import Registry
from gptkit.diagrams.difference import changed_boxes
from gptkit.diagrams.drawing import svg
from gptkit.reflect import prose, snippets
from gptkit.runs.opening import open_spec
from gptkit.runs.spec import spec_outline

__all__ = ["assets", "section"]

_PAIR = ("gpt2", "modern")


def section(registry: Registry) -> str:
    """Return a section of a page as Markdown; its diagrams are `assets`."""
    left, right = (open_spec(name, registry=registry).spec.model for name in _PAIR)
    rows = [
        [f"`{each.dotted}`", f"`{_shown(each.left)}`", f"`{_shown(each.right)}`"]
        for each in differences(left, right, ("model",))
    ]
    images = "\n".join(
        f'<figure><img src="{_file(name)}" alt="Architecture of {name}" loading="lazy"></figure>' for name in _PAIR
    )
    return "\n\n".join(
        [
            "## Two specs side by side",
            f"`gptkit diff {' '.join(_PAIR)} --html FILE` writes this comparison as a page. Parts that differ are outlined.",
            f'<div class="side-by-side">\n{images}\n</div>',
            prose.table(["field", *_PAIR], rows),
        ]
    )


def assets(registry: Registry) -> dict[str, str]:
    """Return the two diagrams by path."""
    outlines = [spec_outline(open_spec(name, registry=registry).spec) for name in _PAIR]
    marked = changed_boxes(outlines[0], outlines[1])
    return {
        _file(name): svg(content, standalone=True, changed=keys)
        for name, content, keys in zip(_PAIR, outlines, marked, strict=True)
    }


def _file(name: str) -> str:
    return f"diagrams/{'-'.join(_PAIR)}/{name}.svg"


def _shown(value: Any) -> str:
    return "–" if value is ABSENT else snippets.flow(snippets.plain(value))
