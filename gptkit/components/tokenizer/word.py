"""Tokenizer `word`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from gptkit.core.errors import TokenizerError
from gptkit.core.spec import fail
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.text.base import UNKNOWN, NumberedTokenizer, SpecialsSpec, not_empty
from gptkit.text.fallback_files import byte_fallback_json, space_joined, whitespace, word_level_json
from gptkit.text.state import SavedState, write_state

__all__ = ["WordSpec", "WordTokenizer", "pieces"]

Fallback = Literal["unknown", "characters"]
Whitespace = Literal["keep", "drop"]

_MARKS = r"""[,.:;?_!"()']|--"""
_SEPARATOR = re.compile(rf"({_MARKS}|\s)")
_CLINGING = frozenset(",.:;?!\"()'")
"""Punctuation that is decoded without a space before it, if whitespace is dropped."""


def pieces(text: str, whitespace: Whitespace) -> Iterator[str]:
    """Yield the pieces of a text: words, punctuation, double hyphens, and whitespace if it is kept."""
    keep = whitespace == "keep"
    return (piece for piece in _SEPARATOR.split(text) if piece and (keep or not piece.isspace()))


class WordTokenizer(NumberedTokenizer):
    """Runtime part of `WordSpec`: ids of bytes (with the fallback to characters), words, special tokens, in this order.

    Args:
        words: the pieces (and characters) with an id, in order.
        fallback, whitespace, lowercase: as in `WordSpec`.
        specials: special tokens in the order of their ids, including the unknown token if it is used.
        start, end: special tokens added before and after a text.
    """

    def __init__(
        self,
        words: Sequence[str],
        fallback: Fallback,
        whitespace: Whitespace,
        lowercase: bool,
        specials: Sequence[str] = (),
        start: str | None = None,
        end: str | None = None,
    ) -> None:
        self.words = list(words)
        self.fallback, self.whitespace, self.lowercase = fallback, whitespace, lowercase
        n_bytes = self._n_bytes = 256 if fallback == "characters" else 0
        joined = whitespace == "drop"
        tokens = [bytes((value,)) for value in range(n_bytes)]
        tokens += [(f" {word}" if joined and word not in _CLINGING else word).encode() for word in words]
        ids = {token: len(tokens) + index for index, token in enumerate(specials)}
        super().__init__(tokens + [(f" {token}" if joined else token).encode() for token in specials], ids, start, end)
        self._ids = {chr(value): value for value in range(min(n_bytes, 128))}
        self._ids |= {word: n_bytes + index for index, word in enumerate(words)}
        self._unknown_id = ids.get(UNKNOWN, -1)

    @property
    def lossless(self) -> bool:
        return self.whitespace == "keep" and self.fallback == "characters" and not self.lowercase

    @property
    def leading(self) -> bytes:
        return b" " if self.whitespace == "drop" else b""

    def encode_ordinary(self, text: str) -> list[int]:
        known = self._ids
        cut = pieces(text.lower() if self.lowercase else text, self.whitespace)
        if self.fallback == "unknown":
            return [known.get(piece, self._unknown_id) for piece in cut]
        ids: list[int] = []
        for piece in cut:
            token = known.get(piece)
            if token is not None:
                ids.append(token)
                continue
            for character in piece:
                token = known.get(character)
                ids += character.encode() if token is None else (token,)
        return ids

    def to_tokenizer_json(self) -> str:
        tokens = dict(zip(self.words, range(self._n_bytes, self._n_bytes + len(self.words)), strict=True))
        if self.lowercase and (self.fallback == "characters" or any("σ" in word or "ς" in word for word in self.words)):
            raise TokenizerError("lower-casing in tokenizer.json has no final sigma (ς)")
        spaces = f"[{whitespace()}]"
        if self.fallback == "characters":
            return byte_fallback_json(tokens, self._specials, splits=[(f"{_MARKS}|{spaces}", "isolated")])
        kept = self.whitespace == "keep"
        splits = [(f"{_MARKS}|{spaces}", "isolated")] if kept else [(spaces, "removed"), (_MARKS, "isolated")]
        decoder = None if kept else space_joined(sorted(_CLINGING))
        return word_level_json(
            tokens, self._specials, unknown=UNKNOWN, splits=splits, decoder=decoder, lowercase=self.lowercase
        )

    def to_spec(self, directory: Path) -> Mapping[str, Any]:
        options = {"fallback": self.fallback, "whitespace": self.whitespace, "lowercase": self.lowercase}
        return {"name": "word", **options, **self.special_fields([UNKNOWN])}

    def save(self, directory: Path) -> None:
        state: dict[str, Any] = {"fallback": self.fallback, "whitespace": self.whitespace, "lowercase": self.lowercase}
        state |= {"specials": list(self._specials), "start": self.start, "end": self.end, "words": self.words}
        write_state(directory, "word", state)


class WordSpec(SpecialsSpec):
    """One id per word, punctuation mark and whitespace character; other words become characters, or `<|unk|>`.

    Formula:
        pieces = split(text, at any of , . : ; ? _ ! " ( ) ' -- and whitespace)
        id(piece) = its index in the sorted vocabulary

    Notes:
        With `fallback: characters` (the hybrid of words and characters), an unknown word is encoded as characters of the
        corpus, and a character that is not in the corpus as the bytes of its UTF-8 encoding (256 more ids; ASCII characters
        are their bytes). This is lossless for every text, unless it is lower-cased.

        With `fallback: unknown`, words outside the vocabulary are lost. With `whitespace: drop`, the kind and amount of
        whitespace is lost too: decoding adds one space between pieces, and none before , . : ; ? ! " ( ) '.
    """

    formula: ClassVar[str] = r"""
        \text{pieces} = \operatorname{split}(\text{text}) \qquad
        \operatorname{id}(p) = |\{p' \in V : p' < p\}|
    """

    reserved = (UNKNOWN,)
    examples = (
        {"fallback": "unknown"},
        {"fallback": "unknown", "whitespace": "drop", "lowercase": True, "min_count": 2},
        {"max_vocab": 300},
    )

    name: Literal["word"] = "word"
    fallback: Fallback = Field("characters", description="Handling of an unknown word: `<|unk|>`, or its characters.")
    whitespace: Whitespace = Field(
        "keep", description="Whether whitespace is encoded; otherwise words are joined by spaces."
    )
    lowercase: bool = Field(False, description="Whether the text is lower-cased first, which is not lossless.")
    max_vocab: int | None = Field(
        None, ge=1, description="Maximum size of the vocabulary: the most frequent pieces are kept."
    )
    min_count: int = Field(1, ge=1, description="Minimum number of occurrences of a piece in the corpus.")

    @model_validator(mode="after")
    def _consistent(self) -> WordSpec:
        if self.fallback == "characters" and self.whitespace == "drop":
            fail(
                "'drop' removes the boundaries of words that are encoded as characters; "
                "keep the whitespace, or choose `fallback: unknown`",
                ("whitespace",),
                self.whitespace,
            )
        if self.max_vocab is not None and self.max_vocab <= self._n_fixed():
            fail(f"must be above {self._n_fixed()}, the ids of bytes and special tokens", ("max_vocab",), self.max_vocab)
        return self

    @property
    def needs_corpus(self) -> bool:
        return True

    @property
    def expected_vocab_size(self) -> int | None:
        return self.max_vocab

    def fit(self, texts: Iterator[str], *, base: Path = Path()) -> Tokenizer:
        counts: Counter[str] = Counter()
        spelled = self.fallback == "characters"
        for text in not_empty(texts):
            text = text.lower() if self.lowercase else text
            cut = Counter(pieces(text, self.whitespace))
            if spelled:
                # Single characters compete with words by frequency; those of ASCII are bytes already.
                cut = Counter({piece: count for piece, count in cut.items() if len(piece) > 1})
                counts.update({piece: count for piece, count in Counter(text).items() if not piece.isascii()})
            counts.update(cut)
        kept = [piece for piece, count in counts.items() if count >= self.min_count]
        if self.max_vocab is not None:
            kept = sorted(kept, key=lambda piece: (-counts[piece], piece))[: self.max_vocab - self._n_fixed()]
        return WordTokenizer(
            sorted(kept),
            self.fallback,
            self.whitespace,
            self.lowercase,
            self._all_specials(),
            self.start_token,
            self.end_token,
        )

    def load(self, directory: Path) -> Tokenizer:
        state = SavedState(directory, self.name)
        return WordTokenizer(
            state.texts("words"),
            state.choice("fallback", get_args(Fallback)),
            state.choice("whitespace", get_args(Whitespace)),
            state.flag("lowercase"),
            state.texts("specials"),
            state.optional_text("start"),
            state.optional_text("end"),
        )

    def _all_specials(self) -> list[str]:
        return self.specials() + ([UNKNOWN] if self.fallback == "unknown" else [])

    def _n_fixed(self) -> int:
        return len(self._all_specials()) + (256 if self.fallback == "characters" else 0)
