"""Markdown extension for the double colons that introduce code in docstrings: a single colon, or nothing, on the pages.

It is an extension of Markdown and not a hook of mkdocs, since other builders run no hooks.
"""

from __future__ import annotations

from typing import Any

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

__all__ = ["LiteralBlocks", "makeExtension"]

_PRIORITY = 20
"""After fenced code, which is removed with priority 25."""


class _Colons(Preprocessor):  # type: ignore[misc]
    def run(self, lines: list[str]) -> list[str]:
        return [_without(line, lines[index + 1 :]) for index, line in enumerate(lines)]


def _without(line: str, following: list[str]) -> str:
    text = line.strip()
    introduced = next((each for each in following if each.strip()), "")
    indent = len(line) - len(line.lstrip())
    if not text.endswith("::") or text.startswith(":::") or len(introduced) - len(introduced.lstrip()) < indent + 4:
        return line
    return "" if text == "::" else line.rstrip().removesuffix(":")


class LiteralBlocks(Extension):  # type: ignore[misc]
    """Extension that reads ``::`` before indented lines as reStructuredText does."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.preprocessors.register(_Colons(md), "gptkit-literal-blocks", _PRIORITY)


def makeExtension(**options: Any) -> LiteralBlocks:
    """Return the extension, as Python-Markdown calls it."""
    return LiteralBlocks(**options)
