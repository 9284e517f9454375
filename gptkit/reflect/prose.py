"""Conversion of docstrings to Markdown: paragraphs, lists from indented sections, code spans, and escaped markup."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

__all__ = ["admonition", "code", "inline", "paper", "prose", "table"]

_CODE = re.compile(r"(``.+?``|`[^`]+`)")
_URL = re.compile(r"https?://[^\s<>()]+[^\s<>().,;:]")
_IDENTIFIER = re.compile(r"(?<![\w./])([A-Za-z]\w*_\w*\w)(?![\w/])")
_MARKUP = re.compile(r"([\\*_>\[\]#|])")
_ITEM = re.compile(r"([\w.,`\[\] -]{1,60}?):\s+(.+)", re.DOTALL)


def inline(text: str) -> str:
    """Convert a run of text: code spans are kept, addresses become links, identifiers become code, the rest is escaped."""
    pieces = []
    for piece in _CODE.split(" ".join(text.split())):
        if piece.startswith("`"):
            pieces.append(f"`{piece.strip('`')}`")
        else:
            pieces.append(_plain(piece))
    return "".join(pieces)


def _plain(text: str) -> str:
    pieces, end = [], 0
    for match in _URL.finditer(text):
        pieces += [_words(text[end : match.start()]), f"[{_short(match[0])}]({match[0]})"]
        end = match.end()
    return "".join([*pieces, _words(text[end:])])


def _words(text: str) -> str:
    """Escape plain words; words with an underscore are formatted as code."""
    return "".join(f"`{part}`" if i % 2 else _escape(part) for i, part in enumerate(_IDENTIFIER.split(text)))


def _escape(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text).replace("<", "&lt;")


def _short(url: str) -> str:
    """Return the link text of an address: the arXiv number, or the address without its scheme."""
    parts = urlsplit(url)
    host = parts.netloc.removeprefix("www.")
    if host == "arxiv.org" and (number := re.search(r"\d{4}\.\d{4,5}", parts.path)):
        return f"arXiv {number[0]}"
    if host == "doi.org":
        return f"doi {parts.path.strip('/')}"
    return _escape(host + parts.path.rstrip("/"))


def paper(text: str) -> str:
    """Convert a Paper section: every address becomes a link whose text is the preceding words, or the short address."""
    links = []
    end = 0
    flat = " ".join(text.split())
    for match in _URL.finditer(flat):
        title = flat[end : match.start()].strip(" ,;:.()[]<>–-")
        links.append(f"[{_escape(title) or _short(match[0])}]({match[0]})")
        end = match.end()
    rest = flat[end:].strip(" ,;:.()[]<>")
    return ", ".join([*links, *([inline(rest)] if rest else [])])


def prose(text: str, *, level: int = 0) -> str:
    """Convert paragraphs; an indented block becomes a list after a line ending in a colon, or code after two colons."""
    out: list[str] = []
    lines = inspect.cleandoc(text).splitlines()
    index = 0
    while index < len(lines):
        paragraph = []
        while index < len(lines) and lines[index] and not lines[index][0].isspace():
            paragraph.append(lines[index])
            index += 1
        inner = []
        while index < len(lines) and (not lines[index] or lines[index][0].isspace()):
            inner.append(lines[index])
            index += 1
        words = " ".join(paragraph)
        has_block = any(line.strip() for line in inner)
        block = inspect.cleandoc("\n".join(["", *inner]))
        if has_block and words.endswith("::"):
            out += [inline(words[:-1]), code(block)]
        elif has_block and words.endswith(":"):
            out += [f"**{inline(words)}**", _items(block)]
        else:
            out += [inline(words)] if words else []
            out += [prose(block)] if has_block else []
    return "\n\n".join(out)


def _items(block: str) -> str:
    """Return one list item per unindented line; indented lines continue it."""
    items: list[str] = []
    for line in block.splitlines():
        if items and (not line or line[0].isspace()):
            items[-1] += " " + line.strip()
        elif line:
            items.append(line)
    return "\n".join(f"- {_item(item)}" for item in items)


def _item(text: str) -> str:
    match = _ITEM.fullmatch(text.strip())
    return f"**{inline(match[1])}**: {inline(match[2])}" if match else inline(text)


def code(text: str, language: str = "text") -> str:
    """Return a fenced code block, with a fence longer than any inside."""
    fence = "`" * max(3, max((len(run) + 1 for run in re.findall(r"`{3,}", text)), default=3))
    return f"{fence}{language}\n{text}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, marks: bool = False) -> str:
    """Return a table; cells are Markdown.

    Args:
        head: the titles of the columns.
        rows: the cells.
        marks: cells after the first one are marks, which are centered.
    """
    lines = [head, ["---", *([":-:" if marks else "---"] * (len(head) - 1))], *rows]
    return "\n".join(f"| {' | '.join(cell.replace(chr(10), ' ') for cell in line)} |" for line in lines)


def admonition(style: str, title: str, body: str) -> str:
    """Return an admonition."""
    inner = "\n".join(f"    {line}" if line else "" for line in body.splitlines())
    return f'!!! {style} "{title}"\n\n{inner}'
