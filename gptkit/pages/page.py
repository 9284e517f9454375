"""HTML pages in one file: style, scripts and data are part of the page, and nothing is loaded.

Token texts reach a page as JSON data only, and its scripts show them as text, so none is read as HTML.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import Any

import gptkit
from gptkit.pages.report import GENERATOR

__all__ = ["ICON", "asset", "digest", "document", "embedded", "page"]

ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='4' fill='%233f51b5'/%3E"
    "%3Cpath d='M4 12V8m4 4V4m4 8V6' stroke='white' stroke-width='2' stroke-linecap='round'/%3E%3C/svg%3E"
)


@cache
def asset(name: str) -> str:
    """Return the text of a file in ``gptkit/pages/assets``."""
    return (resources.files("gptkit.pages") / "assets" / name).read_text(encoding="utf-8")


def embedded(data: Mapping[str, Any]) -> str:
    """Return JSON for a script element: no character of it can end the element or begin a comment."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page(title: str, scripts: Sequence[str], data: Mapping[str, Any], *, connects: bool = False) -> str:
    """Return a page.

    Args:
        title: the title, plain text.
        scripts: names of the assets that draw the page, in their order.
        data: what they draw; ``JSON.parse(document.getElementById("data").textContent)``.
        connects: whether the page may send requests to the server that it came from.
    """
    style = asset("style.css")
    code = "\n".join(asset(name) for name in scripts)
    # Only these very texts may run or apply, whatever the data holds.
    policy = (
        f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src '{digest(style)}'; script-src '{digest(code)}'" + ("; connect-src 'self'" if connects else "")
    )
    return document(
        title,
        policy,
        style,
        f'<main id="main"><noscript><p>This page needs JavaScript.</p></noscript></main>\n'
        f'<script type="application/json" id="data">{embedded(data)}</script>\n'
        f"<script>{code}</script>\n",
    )


def document(title: str, policy: str, style: str, body: str) -> str:
    """Return a page with a head.

    Args:
        title: the title, plain text.
        policy: what it may load and run, as a content security policy.
        style: its style sheet.
        body: HTML.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'{GENERATOR} {gptkit.__version__}">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="{ICON}">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def digest(text: str) -> str:
    """Return the source of a content security policy that allows this very text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
