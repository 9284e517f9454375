"""Decoders of a tokenizer.json, as functions from a token to its bytes.

Streaming requires decoding one token at a time. Decoders that depend on neighboring tokens do so only at the start of a
text, which `leading` describes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gptkit.core.errors import TokenizerError
from gptkit.text.bytes import BYTES, unspell

__all__ = ["TokenDecoder", "token_decoder"]

TokenDecoder = Callable[[str], bytes]
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


def token_decoder(decoder: Any) -> tuple[TokenDecoder, bytes]:
    """Return the function for a decoder of tokenizer.json, and the bytes that it removes at the start of a text.

    Raises:
        TokenizerError: the decoder cannot decode tokens independently.
    """
    replacements: list[tuple[str, str]] = []
    byte_level = byte_fallback = joined = False
    leading = b""
    for step in _flat(decoder):
        kind = step.get("type")
        if kind == "ByteLevel":
            byte_level = True
        elif kind == "ByteFallback":
            byte_fallback = True
        elif kind == "Metaspace":
            replacements.append((str(step.get("replacement", "▁")), " "))
            # Older files use a flag.
            never = step.get("prepend_scheme") == "never" or step.get("add_prefix_space") is False
            leading = leading if never else b" "
        elif kind == "Replace" and isinstance(step.get("pattern"), dict) and "String" in step["pattern"]:
            replacements.append((str(step["pattern"]["String"]), str(step.get("content", ""))))
        elif kind == "Strip" and joined and (step.get("content"), step.get("start"), step.get("stop")) == (" ", 1, 0):
            leading = b" "
        elif kind == "Strip" and not step.get("start") and not step.get("stop"):
            pass
        elif kind == "Fuse":
            joined = True
        else:
            raise TokenizerError(f"its decoder {step.get('type')!r} cannot decode tokens one at a time")

    def decode(token: str) -> bytes:
        if byte_fallback and (match := _BYTE.fullmatch(token)):
            return bytes.fromhex(match[1])
        for old, new in replacements:
            token = token.replace(old, new)
        if byte_level and all(character in BYTES for character in token):
            return unspell(token)
        return token.encode()

    return decode, leading


def _flat(decoder: Any) -> list[dict[str, Any]]:
    if not isinstance(decoder, dict):
        raise TokenizerError("it has no decoder, so tokens cannot be decoded to text")
    if decoder.get("type") != "Sequence":
        return [decoder]
    return [step for inner in decoder.get("decoders", ()) for step in _flat(inner)]
