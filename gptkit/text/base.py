"""Base of tokenizers with an explicit vocabulary: special tokens, decoding, and handling of malformed text."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import Field, field_validator

from gptkit.core.errors import TokenizerError
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec

__all__ = [
    "END",
    "UNKNOWN",
    "NumberedTokenizer",
    "SpecialTokens",
    "SpecialsSpec",
    "not_empty",
    "out_of_range",
    "well_formed",
]

END = "<|endoftext|>"
UNKNOWN = "<|unk|>"
_SURROGATE = re.compile("[\ud800-\udfff]")
_PARALLEL_CHARACTERS = 100_000
"""Number of characters below which a batch is encoded without threads."""


def well_formed(text: str) -> str:
    """Join surrogate pairs, and replace lone surrogates, which UTF-8 cannot encode, by U+FFFD."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def out_of_range(token: int, vocab_size: int) -> TokenizerError:
    """Return the error for an id outside the vocabulary."""
    return TokenizerError(
        f"token id {token} is out of range: ids are 0 to {vocab_size - 1}",
        hint="Check that the ids come from this tokenizer.",
    )


def not_empty(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts in well-formed UTF-8.

    Raises:
        TokenizerError: at the end, if all texts are empty.
    """
    empty = True
    for text in texts:
        empty = empty and not text
        yield well_formed(text)
    if empty:
        raise TokenizerError("the corpus is empty, so the tokenizer cannot be trained", hint="Use files that contain text.")


class SpecialsSpec(TokenizerSpec):
    """Base of tokenizer specs whose special tokens have ids after all others.

    Class variables:
        reserved: special tokens that the tokenizer adds automatically.
    """

    reserved: ClassVar[tuple[str, ...]] = ()

    start_token: str | None = Field(None, min_length=1, description="Special token added before a text; none by default.")
    end_token: str | None = Field(
        END, min_length=1, description="Special token added after a text; may equal the start token."
    )
    special_tokens: tuple[str, ...] = Field((), description="Additional special tokens, such as the turn markers of a chat.")

    @field_validator("start_token", "end_token", "special_tokens")
    @classmethod
    def _spelling(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        tokens = (value,) if isinstance(value, str) else value or ()
        for token in tokens:
            if not token or token != well_formed(token):
                raise ValueError("a special token must have at least one character, and no lone surrogates")
            if token in cls.reserved:
                raise ValueError(f"{token!r} is reserved: the tokenizer adds it automatically; remove it")
        if len(set(tokens)) < len(tokens):
            raise ValueError("a special token is listed twice; list it once")
        return value

    def specials(self) -> list[str]:
        """Return all special tokens in the order of their ids."""
        named = (self.start_token, self.end_token, *self.special_tokens)
        return list(dict.fromkeys(token for token in named if token is not None))


class SpecialTokens(Tokenizer):
    """Base of tokenizers with special tokens.

    Attributes:
        start, end: special tokens added before and after a text; None for none.
    """

    start: str | None
    end: str | None
    _specials: dict[str, int]

    @property
    def special_tokens(self) -> Mapping[str, int]:
        return MappingProxyType(self._specials)

    @property
    def start_id(self) -> int | None:
        return None if self.start is None else self._specials[self.start]

    @property
    def end_id(self) -> int | None:
        return None if self.end is None else self._specials[self.end]


class NumberedTokenizer(SpecialTokens):
    """Tokenizer whose vocabulary is a list of byte strings.

    Args:
        tokens: the bytes of every id; empty for an unused id.
        specials: special tokens and their ids.
        start: special token added before a text.
        end: special token added after a text.

    Raises:
        TokenizerError: `start` or `end` is not a special token, or the id of a special token is out of range.
    """

    def __init__(
        self, tokens: list[bytes], specials: Mapping[str, int], start: str | None = None, end: str | None = None
    ) -> None:
        self.start, self.end = start, end
        self._tokens = tokens
        self._specials = dict(specials)
        for token in (start, end):
            if token is not None and token not in self._specials:
                raise TokenizerError(f"the start or end token {token!r} is not one of the special tokens")
        if any(not 0 <= token < len(tokens) for token in self._specials.values()):
            raise TokenizerError("the id of a special token is outside the vocabulary")

    def special_fields(self, reserved: Collection[str] = ()) -> dict[str, Any]:
        """Return the fields of a `SpecialsSpec` that give these special tokens; `reserved` as in the spec."""
        named = (self.start, self.end, *reserved)
        others = [token for token in self._specials if token not in named]
        return {"start_token": self.start, "end_token": self.end, "special_tokens": others}

    @property
    def vocab_size(self) -> int:
        return len(self._tokens)

    @abstractmethod
    def encode_ordinary(self, text: str) -> list[int]:
        """Encode well-formed text without recognizing special tokens."""

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
        # Equivalent to the default implementation, without a call per token.
        ids = list(ids)
        for token in (min(ids, default=None), max(ids, default=None)):
            if token is not None and not 0 <= token < len(self._tokens):
                raise out_of_range(token, len(self._tokens))
        data = b"".join(map(self._tokens.__getitem__, ids))
        return data.removeprefix(self.leading).decode("utf-8", errors="replace")


def special_pattern(allowed: Collection[str], known: Collection[str]) -> re.Pattern[str]:
    """Return a pattern with one group that matches the allowed special tokens, the longest first.

    Raises:
        TokenizerError: an allowed token is not a special token.
    """
    hint = "Pass a list of special tokens; tokenizer.special_tokens allows all."
    if isinstance(allowed, str):
        raise TokenizerError(f"allowed_special must be a list of strings, not the string {allowed!r}", hint=hint)
    for token in allowed:
        if token not in known:
            listed = ", ".join(map(repr, known)) or "none"
            raise TokenizerError(f"{token!r} is not a special token of this tokenizer (it has: {listed})", hint=hint)
    return re.compile("(" + "|".join(re.escape(token) for token in sorted(allowed, key=len, reverse=True)) + ")")


def encode_in_threads(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Encode texts in parallel threads if they are large enough; for tokenizers whose core releases the GIL."""
    workers = min(len(texts), os.cpu_count() or 1)
    if workers < 2 or sum(map(len, texts)) < _PARALLEL_CHARACTERS:
        return [tokenizer.encode(text) for text in texts]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(tokenizer.encode, texts))
