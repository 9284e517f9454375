"""Tokenizer `hugging-face`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from tokenizers import Tokenizer as Core

from gptkit.components.tokenizer._base import out_of_range, special_pattern, well_formed
from gptkit.components.tokenizer._bytes import BYTES
from gptkit.components.tokenizer._decoders import token_decoder
from gptkit.components.tokenizer._state import SavedState, damaged, read_bytes, write_state
from gptkit.errors import TokenizerError
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec

__all__ = ["HuggingFaceSpec", "HuggingFaceTokenizer"]

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"


class HuggingFaceTokenizer(Tokenizer):
    """The runtime part.

    Args:
        data: the tokenizer.json.
        start, end: special tokens put before and after a text.
        chat_template: the Jinja template that lays out a conversation, kept for whoever renders one.

    Raises:
        TokenizerError: the data is no tokenizer, or one that cannot decode a token at a time.
    """

    def __init__(self, data: bytes, start: str | None, end: str | None, chat_template: str | None = None) -> None:
        self.data, self.start, self.end, self.chat_template = data, start, end, chat_template
        self._core, self._core_allowing = _core(data), _core(data)
        self._core.encode_special_tokens = True
        parts = json.loads(self._core.to_str())
        self._decode_token, self._leading = token_decoder(parts["decoder"])
        added = self._core.get_added_tokens_decoder()
        self._added = {token: entry.content.encode() for token, entry in added.items()}
        self._specials = {entry.content: token for token, entry in sorted(added.items()) if entry.special}
        self._vocab_size = max(self._core.get_vocab().values(), default=-1) + 1
        self._lossless = _is_lossless(parts)
        self._bytes: dict[int, bytes] = {}
        for token in (start, end):
            if token is not None and token not in self._specials:
                raise TokenizerError(f"{token!r} is to start or end a text and is no special token of the tokenizer.json")

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return dict(self._specials)

    @property
    def start_id(self) -> int | None:
        return None if self.start is None else self._specials[self.start]

    @property
    def end_id(self) -> int | None:
        return None if self.end is None else self._specials[self.end]

    @property
    def lossless(self) -> bool:
        return self._lossless

    @property
    def leading(self) -> bytes:
        return self._leading

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        text = well_formed(text)
        if not allowed_special:
            return _ids(self._core, text)
        pattern = special_pattern(allowed_special, self._specials)
        if all(token in allowed_special for token in self._specials if token in text):
            # Nothing has to stay text, so the library may find them: it knows of their spaces and of what comes first.
            return _ids(self._core_allowing, text)
        ids: list[int] = []
        for index, part in enumerate(pattern.split(text)):
            if index % 2:
                ids.append(self._specials[part])
            elif part:
                ids += _ids(self._core, part)
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        found = self._core.encode_batch([well_formed(text) for text in texts], add_special_tokens=False)
        return [list(encoding.ids) for encoding in found]

    def token_bytes(self, token: int) -> bytes:
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._look_up(token)
        return known

    def _look_up(self, token: int) -> bytes:
        if not 0 <= token < self._vocab_size:
            raise out_of_range(token, self._vocab_size)
        if token in self._added:
            return self._added[token]
        spelled = self._core.id_to_token(token)
        return b"" if spelled is None else self._decode_token(spelled)

    def save(self, folder: Path) -> None:
        (folder / TOKENIZER_FILE).write_bytes(self.data)
        state = {"start": self.start, "end": self.end, "chat_template": self.chat_template}
        write_state(folder, "hugging-face", state)


class HuggingFaceSpec(TokenizerSpec):
    """A ready-made tokenizer.json, as models on the Hugging Face hub have one.

    Notes:
        Read by the `tokenizers` library. The start and end of a text are the files' own (`bos_token`, `eos_token` of
        tokenizer_config.json or special_tokens_map.json) unless they are named here. Encoding a text never adds them: whoever builds the
        model's input does, and the start token only if the tokenizer.json itself would put it there, or `start_token`
        names it. A chat template is kept with the tokenizer and its run.

        Lossless if it is byte-level and changes nothing before it splits; others may lose spaces or composed characters.
    """

    name: Literal["hugging-face"] = "hugging-face"
    path: str = Field(min_length=1, description="A tokenizer.json, or the folder that holds one.")
    start_token: str | None = Field(
        None, description="Special token put before a text; an empty text for none, nothing for what the files say."
    )
    end_token: str | None = Field(
        None, description="Special token put after a text; an empty text for none, nothing for what the files say."
    )

    def fit(self, texts: Iterator[str]) -> Tokenizer:
        path = Path(self.path)
        path = path / TOKENIZER_FILE if path.is_dir() else path
        try:
            data = path.read_bytes()
        except OSError as error:
            raise TokenizerError(
                f"{path}: cannot be read ({error.strerror or error})",
                hint="Give the path of a tokenizer.json, or of the folder that holds it.",
            ) from None
        config = _config(path.parent)
        start, end = self.start_token, self.end_token
        try:
            if start is None:
                start = _text(config.get("bos_token"))
                start = start if start and _puts_first(_core(data), start, config) else None
            end = _text(config.get("eos_token")) if end is None else end
            return HuggingFaceTokenizer(data, start or None, end or None, _template(path.parent, config))
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error.message}", hint=error.hint) from None

    def load(self, folder: Path) -> Tokenizer:
        state = SavedState(folder, self.name)
        path = folder / TOKENIZER_FILE
        start, end, template = (state.optional_text(key) for key in ("start", "end", "chat_template"))
        try:
            return HuggingFaceTokenizer(read_bytes(path), start, end, template)
        except TokenizerError as error:
            raise damaged(path, error.message) from None


def _core(data: bytes) -> Core:
    try:
        core = Core.from_str(data.decode())
        # A published file may cut or fill up texts to the length its model was trained with.
        core.no_truncation()
        core.no_padding()
    except BaseException as error:
        # What the library panics with is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"is no tokenizer that the `tokenizers` library can read ({error})") from None
    return core


def _ids(core: Core, text: str) -> list[int]:
    return list(core.encode(text, add_special_tokens=False).ids)


def _puts_first(core: Core, start: str, config: Mapping[str, Any]) -> bool:
    """Whether the files put the start token before a text."""
    first = core.encode("", add_special_tokens=True).ids[:1]
    return config.get("add_bos_token") is True or first == [core.token_to_id(start)]


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", CONFIG_FILE):
        path = folder / name
        if not path.is_file():
            continue
        try:
            found = json.loads(read_bytes(path))
        except (ValueError, RecursionError) as error:
            raise damaged(path, f"is no JSON ({error})") from None
        if not isinstance(found, dict):
            raise damaged(path, "is no JSON object")
        config |= found
    return config


def _text(value: Any) -> str | None:
    """A special token, which is written as a text or as a mapping with its `content`."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    path = folder / TEMPLATE_FILE
    if path.is_file():
        return read_bytes(path).decode(errors="replace")
    value = config.get("chat_template")
    if isinstance(value, list):
        named = {str(entry.get("name")): entry.get("template") for entry in value if isinstance(entry, dict)}
        value = named.get("default", next(iter(named.values()), None))
    return value if isinstance(value, str) else None


def _is_lossless(parts: Mapping[str, Any]) -> bool:
    """Whether the tokenizer is byte-level with every byte in its vocabulary, and changes nothing before it splits."""
    stages = parts["pre_tokenizer"] or {}
    stages = stages.get("pretokenizers", [stages])
    byte_level = [stage for stage in stages if stage.get("type") == "ByteLevel"]
    cutting = all(stage.get("behavior") == "Isolated" for stage in stages if stage.get("type") == "Split")
    known = all(stage.get("type") in ("ByteLevel", "Split", "Digits") for stage in stages)
    plain = parts["normalizer"] is None and (parts["decoder"] or {}).get("type") == "ByteLevel"
    spaces = any(stage.get("add_prefix_space", True) for stage in byte_level)
    vocab = parts["model"].get("vocab") or {}
    return bool(byte_level) and cutting and known and plain and not spaces and all(character in vocab for character in BYTES)
