"""Docstring text as Markdown: paragraphs, lists from indented sections, code spans, and nothing taken for markup."""

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
    """One run of text. Code spans stay, addresses become links, names become code, and everything else means itself."""
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
    """Plain words; those with an underscore are names out of code and are shown as such."""
    return "".join(f"`{part}`" if i % 2 else _escape(part) for i, part in enumerate(_IDENTIFIER.split(text)))


def _escape(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text).replace("<", "&lt;")


def _short(url: str) -> str:
    """An address as link text: arXiv numbers by their usual name, others without their scheme."""
    parts = urlsplit(url)
    host = parts.netloc.removeprefix("www.")
    if host == "arxiv.org" and (number := re.search(r"\d{4}\.\d{4,5}", parts.path)):
        return f"arXiv {number[0]}"
    if host == "doi.org":
        return f"doi {parts.path.strip('/')}"
    return _escape(host + parts.path.rstrip("/"))


def paper(text: str) -> str:
    """A Paper section: every address becomes the link of the words before it, or of its own short form."""
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
    """Paragraphs, with an indented block after a line ending in a colon becoming a list, or code after two colons."""
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
    """One list item for every line at the margin; deeper lines go on with it."""
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
    """A fenced block; the fence is longer than any inside."""
    fence = "`" * max(3, max((len(run) + 1 for run in re.findall(r"`{3,}", text)), default=3))
    return f"{fence}{language}\n{text}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace(chr(10), ' ') for cell in line)} |" for line in lines)


def admonition(style: str, title: str, body: str) -> str:
    """A coloured box."""
    inner = "\n".join(f"    {line}" if line else "" for line in body.splitlines())
    return f'!!! {style} "{title}"\n\n{inner}'
