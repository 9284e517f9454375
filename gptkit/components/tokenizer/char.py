"""Tokenizer `char`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from gptkit.core.errors import TokenizerError
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.text.base import UNKNOWN, NumberedTokenizer, SpecialsSpec, not_empty
from gptkit.text.fallback_files import CHARACTERS, byte_fallback_json, word_level_json
from gptkit.text.state import SavedState, write_state

__all__ = ["CharSpec", "CharTokenizer"]

Unknown = Literal["token", "bytes", "error"]


class CharTokenizer(NumberedTokenizer):
    """Runtime part of `CharSpec`: ids of bytes (if they are the fallback), characters, special tokens, in this order.

    Args:
        characters: the characters with an id, in order; with `bytes`, those beyond ASCII.
        unknown: the handling of any other character.
        specials: special tokens in the order of their ids, including the unknown token if it is used.
        start, end: special tokens added before and after a text.
    """

    def __init__(
        self,
        characters: Sequence[str],
        unknown: Unknown,
        specials: Sequence[str] = (),
        start: str | None = None,
        end: str | None = None,
    ) -> None:
        self.characters = list(characters)
        self.unknown = unknown
        n_bytes = self._n_bytes = 256 if unknown == "bytes" else 0
        tokens = [bytes((value,)) for value in range(n_bytes)] + [character.encode() for character in characters]
        ids = {token: len(tokens) + index for index, token in enumerate(specials)}
        super().__init__(tokens + [token.encode() for token in specials], ids, start, end)
        # An ASCII character is one byte, so with the fallback to bytes it needs no second id.
        self._ids = {chr(value): value for value in range(min(n_bytes, 128))}
        self._ids |= {character: n_bytes + index for index, character in enumerate(characters)}
        self._unknown_id = ids.get(UNKNOWN, -1)

    @property
    def lossless(self) -> bool:
        return self.unknown == "bytes"

    def encode_ordinary(self, text: str) -> list[int]:
        if self.unknown == "token":
            ids, unknown_id = self._ids, self._unknown_id
            return [ids.get(character, unknown_id) for character in text]
        with contextlib.suppress(KeyError):
            return list(map(self._ids.__getitem__, text))
        return [token for character in text for token in self._spell(character, text)]

    def _spell(self, character: str, text: str) -> Sequence[int]:
        known = self._ids.get(character)
        if known is not None:
            return (known,)
        if self.unknown == "bytes":
            return character.encode()
        raise TokenizerError(
            f"character {text.index(character)} of a text is {character!r}, which is not in the tokenizer's corpus",
            hint="Train on a corpus that contains it, or choose `unknown: bytes` or `unknown: token`.",
        )

    def to_tokenizer_json(self) -> str:
        splits = [(CHARACTERS, "isolated")]
        tokens = {character: number for character, number in self._ids.items() if number >= self._n_bytes}
        if self.unknown == "bytes":
            return byte_fallback_json(tokens, self._specials, splits=splits)
        # Without the unknown token in the vocabulary, other characters are errors.
        return word_level_json(tokens, self._specials, unknown=UNKNOWN, splits=splits)

    def to_spec(self, directory: Path) -> Mapping[str, Any]:
        return {"name": "char", "unknown": self.unknown, **self.special_fields([UNKNOWN])}

    def save(self, directory: Path) -> None:
        state: dict[str, Any] = {"characters": self.characters, "unknown": self.unknown}
        write_state(directory, "char", {**state, "specials": list(self._specials), "start": self.start, "end": self.end})


class CharSpec(SpecialsSpec):
    """One id per character (Unicode code point) of the corpus, in the order of the code points.

    Formula:
        id(c) = number of distinct characters of the corpus below c

    Notes:
        A character that is not in the corpus becomes `<|unk|>` (not lossless), the bytes of its UTF-8 encoding
        (`unknown: bytes`, which adds 256 ids and is lossless for every text), or an error. Text with only characters of the
        corpus is decoded exactly in each case.
    """

    formula: ClassVar[str] = r"\operatorname{id}(c) = |\{c' \in \text{corpus} : c' < c\}|"

    reserved = (UNKNOWN,)

    name: Literal["char"] = "char"
    unknown: Unknown = Field(
        "token", description="Handling of a character outside the corpus: `<|unk|>`, its UTF-8 bytes, or an error."
    )

    @property
    def needs_corpus(self) -> bool:
        return True

    def fit(self, texts: Iterator[str], *, base: Path = Path()) -> Tokenizer:
        result: set[str] = set()
        for text in not_empty(texts):
            result.update(text)
        if self.unknown == "bytes":
            result = {character for character in result if not character.isascii()}
        specials = self.specials() + ([UNKNOWN] if self.unknown == "token" else [])
        return CharTokenizer(sorted(result), self.unknown, specials, self.start_token, self.end_token)

    def load(self, directory: Path) -> Tokenizer:
        state = SavedState(directory, self.name)
        unknown = state.choice("unknown", get_args(Unknown))
        specials, start, end = state.texts("specials"), state.optional_text("start"), state.optional_text("end")
        return CharTokenizer(state.texts("characters"), unknown, specials, start, end)
