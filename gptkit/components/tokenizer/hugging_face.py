"""Tokenizer `hugging-face`."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from gptkit.core.atomic import write_bytes
from gptkit.core.errors import TokenizerError
from gptkit.core.paths import expand_home
from gptkit.core.pointers import refuse_pointer
from gptkit.kinds.tokenizer import BytePairs, Tokenizer, TokenizerSpec
from gptkit.text import hub_files as hub
from gptkit.text.base import SpecialTokens, out_of_range, special_pattern, well_formed
from gptkit.text.decoders import token_decoder
from gptkit.text.hub_files import TOKENIZER_FILE
from gptkit.text.state import SavedState, damaged, read_bytes, write_state

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Core

__all__ = ["HuggingFaceSpec", "HuggingFaceTokenizer"]


class HuggingFaceTokenizer(SpecialTokens):
    """Runtime part of `HuggingFaceSpec`.

    Args:
        data: the content of tokenizer.json.
        start, end: special tokens added before and after a text.
        chat_template: the Jinja chat template.

    Raises:
        TokenizerError: the data is not a tokenizer, or its decoder cannot decode tokens one at a time.
    """

    def __init__(self, data: bytes, start: str | None, end: str | None, chat_template: str | None = None) -> None:
        self.data, self.start, self.end, self._chat_template = data, start, end, chat_template
        self._bounds = tuple(dict.fromkeys(token for token in (start, end) if token is not None))
        self._core = hub.read_core(data, self._bounds)
        self._core.encode_special_tokens = True
        self._decode_token, self._leading = token_decoder(hub.stage(self._core.decoder))
        added = self._core.get_added_tokens_decoder()
        self._added = {token: entry.content.encode() for token, entry in added.items()}
        self._specials = {entry.content: token for token, entry in sorted(added.items()) if entry.special}
        vocab = self._core.get_vocab()
        self._vocab_size = max(vocab.values(), default=-1) + 1
        self._lossless = hub.is_lossless(self._core, vocab)
        self._bytes: dict[int, bytes] = {}

    @functools.cached_property
    def _core_allowing(self) -> Core:
        """Tokenizer of the library that recognizes special tokens in texts; created on first use."""
        return hub.read_core(self.data, self._bounds)

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

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
            # All special tokens are allowed, so the library can find them; it handles their spaces and the start token.
            return _ids(self._core_allowing, text)
        ids: list[int] = []
        for index, part in enumerate(pattern.split(text)):
            if index % 2:
                ids.append(self._specials[part])
            elif part:
                ids += _ids(self._core, part)
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        clean = [well_formed(text) for text in texts]
        result = hub.guarded(lambda: self._core.encode_batch(clean, add_special_tokens=False), "a text cannot be encoded")
        return [list(encoding.ids) for encoding in result]

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

    @property
    def chat_template(self) -> str | None:
        return self._chat_template

    def byte_pairs(self) -> BytePairs:
        stages = json.loads(self.data)
        model = stages["model"]
        decoder = (stages.get("decoder") or {}).get("type")
        if model.get("type") != "BPE" or not (self.lossless or decoder == "ByteLevel"):
            raise TokenizerError("it is not a byte-level pair encoding")
        # Unicode composition (NFC), which Qwen's normalizer does, is omitted by the converters of other formats too.
        if (stages.get("normalizer") or {"type": "NFC"}).get("type") != "NFC":
            raise TokenizerError("it changes texts before it splits them")
        outer = stages.get("pre_tokenizer") or {}
        # Older files write a pair as one string.
        listed = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
        merges = [(left, right) for left, right in listed]
        literals = frozenset(entry["id"] for entry in stages.get("added_tokens", ()) if not entry.get("special"))
        known = {token: number for token, number in model["vocab"].items() if number not in self._added}
        split = outer.get("pretokenizers", [outer])
        return BytePairs(known, merges, split, whole=bool(model.get("ignore_merges")), literals=literals)

    def to_tokenizer_json(self) -> str:
        return self.data.decode()

    def to_spec(self, directory: Path) -> Mapping[str, Any]:
        # An empty text means no token, independent of the files.
        return {"name": "hugging-face", "path": str(directory), "start_token": self.start or "", "end_token": self.end or ""}

    def save(self, directory: Path) -> None:
        write_bytes(directory / TOKENIZER_FILE, self.data)
        state = {"start": self.start, "end": self.end, "chat_template": self._chat_template}
        write_state(directory, "hugging-face", {**state, "sha256_tokenizer": hashlib.sha256(self.data).hexdigest()})


def _ids(core: Core, text: str) -> list[int]:
    encoding = hub.guarded(lambda: core.encode(text, add_special_tokens=False), "a text cannot be encoded")
    return list(encoding.ids)


class HuggingFaceSpec(TokenizerSpec):
    """Pretrained tokenizer from a tokenizer.json, as published with models on the Hugging Face hub.

    Notes:
        Read with the `tokenizers` library. The start and end tokens are those of the files (`bos_token`, `eos_token` of
        tokenizer_config.json or special_tokens_map.json) unless they are set here; the start token of the files is used only
        if they also declare that it precedes a text. `encode` adds neither token. The chat template is saved with the
        tokenizer and its run.

        Lossless if it is byte-level and does not normalize the text; others may lose spaces or composed characters.
    """

    name: Literal["hugging-face"] = "hugging-face"
    path: str = Field(min_length=1, description="A tokenizer.json, or its directory.")
    start_token: str | None = Field(
        None, description="Special token added before a text; null for that of the files, an empty text for none."
    )
    end_token: str | None = Field(
        None, description="Special token added after a text; null for that of the files, an empty text for none."
    )

    def fit(self, texts: Iterator[str], *, base: Path = Path()) -> Tokenizer:
        path = base / expand_home(self.path, "tokenizer.path")
        path = path / TOKENIZER_FILE if path.is_dir() else path
        refuse_pointer(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise TokenizerError(
                f"{path}: cannot be read ({error.strerror or error})",
                hint="Set the path of a tokenizer.json, or of its directory.",
            ) from None
        config = hub.read_config(path.parent)
        start, end = self.start_token, self.end_token
        try:
            if start is None:
                start = hub.token_text(config.get("bos_token"))
                start = start if start and hub.puts_first(hub.read_core(data), start, config) else None
            end = hub.token_text(config.get("eos_token")) if end is None else end
            return HuggingFaceTokenizer(data, start or None, end or None, hub.chat_template(path.parent, config))
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error.message}", hint=error.hint) from None

    def load(self, directory: Path) -> Tokenizer:
        state = SavedState(directory, self.name)
        path = directory / TOKENIZER_FILE
        start, end, template = (state.optional_text(key) for key in ("start", "end", "chat_template"))
        data = read_bytes(path)
        if hashlib.sha256(data).hexdigest() != state.text("sha256_tokenizer"):
            raise damaged(path, "has changed since it was written: the checksum differs")
        try:
            return HuggingFaceTokenizer(data, start, end, template)
        except TokenizerError as error:
            raise damaged(path, error.message) from None
