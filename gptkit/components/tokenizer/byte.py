"""Tokenizer `byte`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from gptkit.kinds.tokenizer import BytePairs, Tokenizer
from gptkit.text.base import NumberedTokenizer, SpecialsSpec
from gptkit.text.byte_pairs import tokenizer_json
from gptkit.text.bytes import spell
from gptkit.text.state import SavedState, write_state

__all__ = ["ByteSpec", "ByteTokenizer"]


class ByteTokenizer(NumberedTokenizer):
    """Runtime part of `ByteSpec`: the id of a byte is its value; special tokens have ids from 256.

    Args:
        specials: special tokens in the order of their ids.
        start, end: special tokens added before and after a text.
    """

    def __init__(self, specials: Sequence[str] = (), start: str | None = None, end: str | None = None) -> None:
        tokens = [bytes((value,)) for value in range(256)] + [token.encode() for token in specials]
        super().__init__(tokens, {token: 256 + index for index, token in enumerate(specials)}, start, end)

    def encode_ordinary(self, text: str) -> list[int]:
        return list(text.encode())

    def byte_pairs(self) -> BytePairs:
        return BytePairs({spell(bytes((value,))): value for value in range(256)}, (), split=None)

    def to_tokenizer_json(self) -> str:
        return tokenizer_json(self.byte_pairs(), self._specials)

    def to_spec(self, directory: Path) -> Mapping[str, Any]:
        return {"name": "byte", **self.special_fields()}

    def save(self, directory: Path) -> None:
        write_state(directory, "byte", {"specials": list(self._specials), "start": self.start, "end": self.end})


class ByteSpec(SpecialsSpec):
    """One id per byte of the text's UTF-8 encoding: a vocabulary of 256 for every language.

    Formula:
        ids = UTF-8(text);  special tokens: 256, 257, …

    Paper:
        https://arxiv.org/abs/2105.13626

    Notes:
        Lossless, without training. English text has about four times as many tokens as with byte-pair encoding.
    """

    formula: ClassVar[str] = r"\operatorname{ids} = \operatorname{UTF8}(\text{text}) \in \{0, \dots, 255\}^n"

    name: Literal["byte"] = "byte"

    @property
    def expected_vocab_size(self) -> int:
        return 256 + len(self.specials())

    def fit(self, texts: Iterator[str], *, base: Path = Path()) -> Tokenizer:
        return ByteTokenizer(self.specials(), self.start_token, self.end_token)

    def load(self, directory: Path) -> Tokenizer:
        state = SavedState(directory, self.name)
        return ByteTokenizer(state.texts("specials"), state.optional_text("start"), state.optional_text("end"))
