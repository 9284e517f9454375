"""Tokenizer `bpe`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from gptkit.core.spec import fail
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.text.base import SpecialsSpec, not_empty
from gptkit.text.bytes import unspell
from gptkit.text.patterns import compiled_pattern
from gptkit.text.ranks import RankTokenizer, chunks

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Trained

__all__ = ["BpeSpec", "BpeTokenizer", "train_merges"]

_LONGEST_WORD = 4096
"""Longest run of characters that is not split in training: the trainer's time is quadratic in the length of a word."""


def train_merges(texts: Iterator[str], pattern: str, vocab_size: int, min_frequency: int) -> Trained:
    """Train a byte-level BPE with the `tokenizers` library, up to `vocab_size` tokens or until no pair is frequent enough.

    Args:
        texts: the corpus, read once.
        pattern: a regular expression; each match is a word, and merges do not cross words.
        vocab_size: maximum number of tokens, including the 256 bytes.
        min_frequency: minimum number of occurrences of a pair to be merged.
    """
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Trained

    trained = Trained(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trained.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    trained.train_from_iterator((part for text in texts for part in chunks(text, _LONGEST_WORD)), trainer)
    return trained


class BpeTokenizer(RankTokenizer):
    """Runtime part of `BpeSpec`."""

    def to_spec(self, directory: Path) -> Mapping[str, Any]:
        return {"name": self.name, "vocab_size": self.vocab_size, "pattern": self.pattern, **self.special_fields()}


class BpeSpec(SpecialsSpec):
    """Byte-pair encoding trained on the corpus: the most frequent pair of adjacent tokens is merged repeatedly.

    Formula:
        merge k:  (a, b) = argmax of the count over adjacent pairs in the words of the corpus;  token 256+k = ab

    Paper:
        https://arxiv.org/abs/1508.07909

    Notes:
        Byte-level: the first 256 ids are the bytes, so the encoding is lossless for every text. Merges do not cross the
        pieces of `pattern`. Trained with the `tokenizers` library, encoded with tiktoken's core; training is deterministic.
        A corpus that is too small for `vocab_size` gives fewer tokens.
    """

    formula: ClassVar[str] = r"""
        (a, b)_k = \operatorname{argmax}_{(a, b)} \operatorname{count}(a\,b)
        \operatorname{id}(a\,b) = 256 + k
    """

    examples = ({"vocab_size": 300}, {"vocab_size": 400, "pattern": "gpt4o", "start_token": "<|endoftext|>"})

    name: Literal["bpe"] = "bpe"
    vocab_size: int = Field(
        4096, ge=256, le=2_000_000, description="Maximum number of ids, including bytes and special tokens."
    )
    pattern: str = Field(
        "gpt4",
        min_length=1,
        max_length=2000,
        description="Pattern that splits a text into pieces: `gpt2`, `gpt4`, `gpt4o`, or a regular expression.",
    )
    min_frequency: int = Field(2, ge=1, description="Minimum number of occurrences of a pair to be merged.")

    @field_validator("pattern")
    @classmethod
    def _readable(cls, value: str) -> str:
        compiled_pattern(value)
        return value

    @model_validator(mode="after")
    def _room(self) -> BpeSpec:
        least = 256 + len(self.specials())
        if self.vocab_size < least:
            fail(f"must be at least {least}, for the 256 bytes and the special tokens", ("vocab_size",), self.vocab_size)
        return self

    @property
    def needs_corpus(self) -> bool:
        return True

    @property
    def expected_vocab_size(self) -> int:
        return self.vocab_size

    def fit(self, texts: Iterator[str], *, base: Path = Path()) -> Tokenizer:
        specials = self.specials()
        pattern = compiled_pattern(self.pattern)
        trained = train_merges(not_empty(texts), pattern, self.vocab_size - len(specials), self.min_frequency)
        ranks = {bytes((value,)): value for value in range(256)}
        for left, right in json.loads(trained.to_str())["model"]["merges"]:
            ranks.setdefault(unspell(left + right), len(ranks))
        ids = {token: len(ranks) + index for index, token in enumerate(specials)}
        return BpeTokenizer(self.name, pattern, ranks, ids, self.start_token, self.end_token)

    def load(self, directory: Path) -> Tokenizer:
        return BpeTokenizer.load(directory, self.name)
