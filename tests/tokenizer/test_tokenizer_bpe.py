"""Tokenizer `bpe` against the library that trains it, and the splitting of texts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Regex, pre_tokenizers

from gptkit.components.tokenizer.bpe import BpeSpec, train_merges
from gptkit.core.errors import DataError, TokenizerError
from gptkit.text.patterns import PATTERNS, compiled_pattern
from gptkit.text.published import recipe
from gptkit.text.ranks import RankTokenizer, chunks

ALPHABET = [*"abcdefghij   \n\n\t.,'\"ABC12345é中🙂ñ\u0301", "the", " of", "'ll", "\r\n", "123456", "Zürich"]


def random_text(seed: int) -> str:
    return "".join(random.Random(seed).choices(ALPHABET, k=2000))


@pytest.mark.parametrize("pattern", [*PATTERNS, r"[a-z]+|\n"])
def test_encoding_equals_the_training_library(pattern: str, texts: list[str]) -> None:
    spec = BpeSpec(vocab_size=900, pattern=pattern)
    actual = spec.fit(iter(texts))
    reference = train_merges(iter(texts), compiled_pattern(pattern), 900 - 1, 2)
    assert actual.vocab_size == reference.get_vocab_size() + 1
    for text in (*texts[:3], *map(random_text, range(20))):
        # Ids differ (gptkit numbers bytes by value), so boundaries are compared; the library represents bytes by characters.
        cuts = [len(token) for token in reference.encode(text, add_special_tokens=False).tokens]
        tokens = [actual.token_bytes(token) for token in actual.encode(text)]
        assert [len(token) for token in tokens] == cuts
        assert b"".join(tokens) == text.encode()


@pytest.mark.parametrize(("name", "published"), [("gpt2", "gpt2"), ("gpt4", "cl100k_base"), ("gpt4o", "o200k_base")])
def test_named_patterns_equal_the_published_ones_in_every_engine(name: str, published: str) -> None:
    regex = pytest.importorskip("regex")
    split = pre_tokenizers.Split(Regex(PATTERNS[name]), "isolated")
    for text in map(random_text, range(40)):
        expected = regex.findall(recipe(published).pattern, text)
        assert regex.findall(PATTERNS[name], text) == expected
        assert [piece for piece, _ in split.pre_tokenize_str(text)] == expected


def test_merges_equal_the_formula() -> None:
    # aa is the most frequent pair; then aab, and no other pair occurs twice.
    tokenizer = BpeSpec(vocab_size=300, pattern="gpt2", end_token=None).fit(iter(["aab aab", "xaab"]))
    assert [tokenizer.token_bytes(token) for token in range(256, tokenizer.vocab_size)] == [b"aa", b"aab"]
    assert tokenizer.encode("aabab") == [257, 97, 98]


@pytest.mark.parametrize(("vocab_size", "specials"), [(256, None), (257, "<|e|>"), (261, "<|e|>"), (700, "<|e|>")])
def test_vocabulary_has_the_requested_size(vocab_size: int, specials: str | None, texts: list[str]) -> None:
    tokenizer = BpeSpec(vocab_size=vocab_size, end_token=specials).fit(iter(texts))
    assert tokenizer.vocab_size == vocab_size
    if specials:
        assert tokenizer.special_tokens == {specials: vocab_size - 1}


def test_rare_pairs_are_not_merged() -> None:
    texts = ["ab ab ab cd"]
    sizes = [BpeSpec(min_frequency=least, pattern="gpt2").fit(iter(texts)).vocab_size for least in (1, 2, 4)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] == 257


def test_training_is_deterministic_and_reads_the_corpus_once(texts: list[str]) -> None:
    reads: Counter[int] = Counter()

    def read() -> Iterator[str]:
        for index, text in enumerate(texts):
            reads[index] += 1
            yield text

    first, second = (BpeSpec(vocab_size=800).fit(read()) for _ in range(2))
    assert isinstance(first, RankTokenizer)
    assert isinstance(second, RankTokenizer)
    assert first.ranks == second.ranks
    assert set(reads.values()) == {2}


def test_error_of_the_corpus_is_raised() -> None:
    def texts() -> Iterator[str]:
        yield "a text"
        raise DataError("the file is gone")

    with pytest.raises(DataError, match="the file is gone"):
        BpeSpec().fit(texts())


def test_training_on_one_long_word_terminates() -> None:
    tokenizer = BpeSpec(vocab_size=300).fit(iter(["a" * 200_000, " " * 200_000, "中" * 100_000]))
    assert len(tokenizer.encode("a" * 1000)) < 100


@pytest.mark.parametrize("pattern", ["a*", r"\b", "x?|y", "(?=b)", "(", "[", "gpt5|"])
def test_patterns_that_lose_text_are_rejected(pattern: str) -> None:
    with pytest.raises(ValidationError, match=r"regular expression|lose characters"):
        BpeSpec(pattern=pattern)


def test_too_small_vocabulary_is_rejected() -> None:
    with pytest.raises(ValidationError, match="at least 258"):
        BpeSpec(vocab_size=257, special_tokens=("<|user|>",))


def test_pattern_that_panics_is_reported() -> None:
    ranks = {bytes((value,)): value for value in range(256)}
    tokenizer = RankTokenizer("bpe", r"(?:a|(?=a)a)+(?=c)|[\s\S]", ranks, {})
    with pytest.raises(TokenizerError, match="failed on a text of"):
        tokenizer.encode("a" * 50 + "b")


@settings(deadline=None)
@given(text=st.text(" \nab", max_size=200), longest=st.integers(2, 9))
def test_only_long_runs_are_split(text: str, longest: int) -> None:
    parts = list(chunks(text, longest))
    assert "".join(parts) == text
    expected = []
    for part in _runs(text):
        expected += [part[at : at + longest] for at in range(0, len(part), longest)]
    assert [piece for part in parts for piece in _runs(part)] == expected
    if all(len(run) <= longest for run in _runs(text)):
        assert parts == [text]


def _runs(text: str) -> list[str]:
    runs: list[str] = []
    for character in text:
        if runs and runs[-1][-1].isspace() == character.isspace():
            runs[-1] += character
        else:
            runs.append(character)
    return runs
