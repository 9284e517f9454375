"""Texts of tokens, made visible."""

from __future__ import annotations

from collections.abc import Iterable

from gptkit.kinds.tokenizer import Tokenizer

__all__ = ["label", "running", "text_of", "texts"]

_SIGNS = {"\n": "⏎", "\t": "⇥", " ": "·"}


def text_of(tokenizer: Tokenizer, token: int) -> str:
    r"""Return the text of one token; bytes that are a part of a character are written as ``\xe2``.

    An id beyond the tokenizer's vocabulary (a padded row of the embedding) becomes ``<id 50300>``.
    """
    if token >= tokenizer.vocab_size:
        return f"<id {token}>"
    return tokenizer.token_bytes(token).decode("utf-8", errors="backslashreplace")


def texts(tokenizer: Tokenizer, ids: Iterable[int]) -> dict[int, str]:
    """Return the text of each distinct token."""
    return {token: text_of(tokenizer, token) for token in dict.fromkeys(ids)}


def label(text: str, longest: int = 14) -> str:
    r"""Return a text on one line with visible spaces: a space as ``·``, and an unprintable character as ``\u202e``.

    Args:
        text: the text of a token.
        longest: number of characters after which the label is cut, with an ellipsis.
    """
    shown = "".join(_SIGNS.get(char) or (char if char.isprintable() else _escape(char)) for char in text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def running(text: str) -> str:
    """Return a text as a part of a running text: only characters that are neither printable nor white space are escaped."""
    return "".join(char if char.isprintable() or char in "\n\t" else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
