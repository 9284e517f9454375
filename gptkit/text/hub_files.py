"""Tokenizer files from the Hugging Face hub, read as untrusted input."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gptkit.core.errors import TokenizerError
from gptkit.text.bytes import BYTES
from gptkit.text.state import damaged, read_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Core

__all__ = [
    "TOKENIZER_FILE",
    "chat_template",
    "guarded",
    "is_lossless",
    "puts_first",
    "read_config",
    "read_core",
    "stage",
    "token_text",
]

T = TypeVar("T")

TOKENIZER_FILE = "tokenizer.json"
_CONFIG_FILES = ("special_tokens_map.json", "tokenizer_config.json")
_TEMPLATE_FILE = "chat_template.jinja"


def guarded(work: Callable[[], T], what: str) -> T:
    """Call the `tokenizers` library; convert its exceptions to a `TokenizerError` whose message begins with `what`."""
    try:
        return work()
    except BaseException as error:
        # The library's PanicException is not a subclass of Exception, and cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"{what} ({error})") from None


def read_core(data: bytes, specials: Iterable[str] = ()) -> Core:
    """Load a tokenizer.json with the `tokenizers` library.

    Args:
        data: the content of the file.
        specials: tokens to mark as special, even if the file does not.

    Raises:
        TokenizerError: the file is not a tokenizer, or lacks one of `specials`.
    """
    from tokenizers import Tokenizer as Core

    core = guarded(lambda: Core.from_str(data.decode()), "is not a tokenizer that the `tokenizers` library can read")
    # A published file may truncate or pad texts to the length that its model was trained with.
    core.no_truncation()
    core.no_padding()
    for token in specials:
        if core.token_to_id(token) is None:
            raise TokenizerError(f"does not contain the start or end token {token!r}")
        core.add_special_tokens([token])
    return core


def stage(part: Any) -> Any:
    """Return the JSON description of a normalizer, pre-tokenizer or decoder, or None."""
    return None if part is None else json.loads(part.__getstate__())


def puts_first(core: Core, start: str, config: Mapping[str, Any]) -> bool:
    """Return whether the tokenizer adds the start token before a text."""
    add_bos_token = config.get("add_bos_token")
    if isinstance(add_bos_token, bool):
        return add_bos_token
    first = guarded(lambda: core.encode("", add_special_tokens=True).ids, "cannot encode an empty text")[:1]
    return first == [core.token_to_id(start)]


def read_config(directory: Path) -> dict[str, Any]:
    """Read the configuration files next to tokenizer.json (special tokens, chat template); empty without such files.

    Raises:
        TokenizerError: a file is damaged.
    """
    config: dict[str, Any] = {}
    for name in _CONFIG_FILES:
        path = directory / name
        if not path.is_file():
            continue
        try:
            data = json.loads(read_bytes(path))
        except (ValueError, RecursionError) as error:
            raise damaged(path, f"is not valid JSON ({error})") from None
        if not isinstance(data, dict):
            raise damaged(path, "is not a JSON object")
        config |= data
    return config


def token_text(value: Any) -> str | None:
    """Return a special token, given as a string or as a mapping with its `content`."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def chat_template(directory: Path, config: Mapping[str, Any]) -> str | None:
    """Return the Jinja chat template; the default one if there are several."""
    path = directory / _TEMPLATE_FILE
    if path.is_file():
        return read_bytes(path).decode(errors="replace")
    value = config.get("chat_template")
    if isinstance(value, list):
        named = {str(entry.get("name")): entry.get("template") for entry in value if isinstance(entry, dict)}
        value = named.get("default", next(iter(named.values()), None))
    return value if isinstance(value, str) else None


def is_lossless(core: Core, vocab: Mapping[str, int]) -> bool:
    """Return whether the tokenizer is byte-level, has every byte in its vocabulary, and does not normalize the text."""
    from tokenizers.models import BPE

    outer = stage(core.pre_tokenizer) or {}
    stages = outer.get("pretokenizers", [outer])
    byte_level = [inner for inner in stages if inner.get("type") == "ByteLevel"]
    spaces = any(inner.get("add_prefix_space", True) for inner in byte_level)
    cutting = all(inner.get("behavior") == "Isolated" for inner in stages if inner.get("type") == "Split")
    known = all(inner.get("type") in ("ByteLevel", "Split", "Digits") for inner in stages)
    stripping = any(entry.lstrip or entry.rstrip for entry in core.get_added_tokens_decoder().values() if not entry.special)
    plain = core.normalizer is None and (stage(core.decoder) or {}).get("type") == "ByteLevel" and not stripping
    model = core.model
    bytewise = isinstance(model, BPE) and not model.continuing_subword_prefix and not model.end_of_word_suffix
    complete = all(character in vocab for character in BYTES)
    return bool(byte_level) and not spaces and cutting and known and plain and bytewise and complete
