"""What the tokenizers that number their own tokens share: special tokens, decoding, and the care for odd text."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import ClassVar

from pydantic import Field, field_validator

from gptkit.core.errors import TokenizerError
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec

__all__ = ["END", "UNKNOWN", "NumberedTokenizer", "SpecialsSpec", "not_empty", "out_of_range", "well_formed"]

END = "<|endoftext|>"
UNKNOWN = "<|unk|>"
_SURROGATE = re.compile("[\ud800-\udfff]")
_PARALLEL_CHARACTERS = 100_000
"""Batches below this are encoded before threads have started."""


def well_formed(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates, which UTF-8 cannot write, replaced by U+FFFD."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def out_of_range(token: int, vocab_size: int) -> TokenizerError:
    """The error for an id that is none."""
    return TokenizerError(
        f"no token has the id {token}: ids go from 0 to {vocab_size - 1}",
        hint="Were the ids made by another tokenizer?",
    )


def not_empty(texts: Iterable[str]) -> Iterator[str]:
    """The well-formed texts, one by one.

    Raises:
        TokenizerError: at the end, when all of them were empty.
    """
    empty = True
    for text in texts:
        empty = empty and not text
        yield well_formed(text)
    if empty:
        raise TokenizerError("the corpus is empty, so there is nothing to train the tokenizer on")


class SpecialsSpec(TokenizerSpec):
    """Fields of tokenizers that number their special tokens themselves: after all others.

    Class variables:
        reserved: special tokens that the tokenizer adds itself.
    """

    reserved: ClassVar[tuple[str, ...]] = ()

    start_token: str | None = Field(None, min_length=1, description="Special token put before a text; none by default.")
    end_token: str | None = Field(
        END, min_length=1, description="Special token put after a text; may be the start token too."
    )
    special_tokens: tuple[str, ...] = Field((), description="Further special tokens, such as a chat's turn markers.")

    @field_validator("start_token", "end_token", "special_tokens")
    @classmethod
    def _spelling(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        tokens = (value,) if isinstance(value, str) else value or ()
        for token in tokens:
            if not token or token != well_formed(token):
                raise ValueError("a special token is a text of at least one character, without lone surrogates")
            if token in cls.reserved:
                raise ValueError(f"{token!r} has its own meaning here and is added where it is used")
        if len(set(tokens)) < len(tokens):
            raise ValueError("a special token is listed twice")
        return value

    def specials(self) -> list[str]:
        """All special tokens in the order of their ids."""
        named = (self.start_token, self.end_token, *self.special_tokens)
        return list(dict.fromkeys(token for token in named if token is not None))


class NumberedTokenizer(Tokenizer):
    """A tokenizer that has its tokens as a list of bytes.

    Args:
        tokens: the bytes of every id; empty for an id that means nothing.
        specials: special tokens and their ids.
        start: the special token put before a text.
        end: the special token put after a text.

    Raises:
        TokenizerError: `start` or `end` is no special token, or one's id is out of range.
    """

    def __init__(
        self, tokens: list[bytes], specials: Mapping[str, int], start: str | None = None, end: str | None = None
    ) -> None:
        self.start, self.end = start, end
        self._tokens = tokens
        self._specials = dict(specials)
        for token in (start, end):
            if token is not None and token not in self._specials:
                raise TokenizerError(f"{token!r} is to start or end a text and is no special token")
        if any(not 0 <= token < len(tokens) for token in self._specials.values()):
            raise TokenizerError("a special token's id is beyond the vocabulary")

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return MappingProxyType(self._specials)

    @property
    def start_id(self) -> int | None:
        return None if self.start is None else self._specials[self.start]

    @property
    def end_id(self) -> int | None:
        return None if self.end is None else self._specials[self.end]

    @abstractmethod
    def encode_ordinary(self, text: str) -> list[int]:
        """The ids of well-formed text in which nothing is a special token."""

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        text = well_formed(text)
        if not allowed_special:
            return self.encode_ordinary(text)
        ids: list[int] = []
        # With one group, split alternates between text and special token.
        for index, part in enumerate(re.split(special_pattern(allowed_special, self._specials), text)):
            if index % 2:
                ids.append(self._specials[part])
            elif part:
                ids += self.encode_ordinary(part)
        return ids

    def token_bytes(self, token: int) -> bytes:
        if not 0 <= token < len(self._tokens):
            raise out_of_range(token, len(self._tokens))
        return self._tokens[token]

    def decode(self, ids: Iterable[int]) -> str:
        # As the contract's own, but without a call for every token.
        ids = list(ids)
        for token in (min(ids, default=None), max(ids, default=None)):
            if token is not None and not 0 <= token < len(self._tokens):
                raise out_of_range(token, len(self._tokens))
        data = b"".join(map(self._tokens.__getitem__, ids))
        return data.removeprefix(self.leading).decode("utf-8", errors="replace")


def special_pattern(allowed: Collection[str], known: Collection[str]) -> re.Pattern[str]:
    """Matches the allowed special tokens, the longest first, in a group.

    Raises:
        TokenizerError: one of them is not known.
    """
    hint = "Give a list of special tokens; tokenizer.special_tokens allows all."
    if isinstance(allowed, str):
        raise TokenizerError(f"allowed_special is the text {allowed!r} where a list of texts belongs", hint=hint)
    for token in allowed:
        if token not in known:
            listed = ", ".join(map(repr, known)) or "none"
            raise TokenizerError(f"{token!r} is no special token of this tokenizer (it has: {listed})", hint=hint)
    return re.compile("(" + "|".join(re.escape(token) for token in sorted(allowed, key=len, reverse=True)) + ")")


def encode_in_threads(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Many texts' ids, in threads where that pays: for tokenizers whose core works without Python's lock."""
    workers = min(len(texts), os.cpu_count() or 1)
    if workers < 2 or sum(map(len, texts)) < _PARALLEL_CHARACTERS:
        return [tokenizer.encode(text) for text in texts]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(tokenizer.encode, texts))
