"""Tokenizers `char`, `word` and `byte` against their definitions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from gptkit.components.tokenizer.byte import ByteSpec
from gptkit.components.tokenizer.char import CharSpec
from gptkit.components.tokenizer.word import WordSpec
from gptkit.core.errors import TokenizerError

VERDICT = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "the-verdict.txt"
STORY = 'The gate, old and grey, was shut. "Who--who is it?" said the gate; it\'s_odd: (the gate spoke!)'


def book_pieces(text: str) -> list[str]:
    """Split a text as in "Build a Large Language Model (From Scratch)", chapter 2."""
    return [piece.strip() for piece in re.split(r'([,.:;?_!"()\']|--|\s)', text) if piece.strip()]


def book_decode(tokens: list[str]) -> str:
    return re.sub(r'\s+([,.:;?!"()\'])', r"\1", " ".join(tokens))


def test_byte_ids_equal_the_bytes() -> None:
    tokenizer = ByteSpec(special_tokens=("<|user|>",)).fit(iter(()))
    assert tokenizer.encode("é!") == [0xC3, 0xA9, 0x21]
    assert tokenizer.special_tokens == {"<|endoftext|>": 256, "<|user|>": 257}
    assert tokenizer.decode([0xC3, 0x21, 256]) == "\ufffd!<|endoftext|>"


def test_characters_are_numbered_by_code_point() -> None:
    tokenizer = CharSpec().fit(iter(["ba", "né"]))
    assert tokenizer.encode("abné") == [0, 1, 2, 3]
    assert tokenizer.special_tokens == {"<|endoftext|>": 4, "<|unk|>": 5}
    assert tokenizer.encode("x中") == [5, 5]
    assert tokenizer.decode([0, 5]) == "a<|unk|>"


def test_characters_fall_back_to_bytes() -> None:
    tokenizer = CharSpec(unknown="bytes").fit(iter(["aé"]))
    assert tokenizer.vocab_size == 256 + 1 + 1
    assert tokenizer.encode("az\u00e9ß") == [97, 122, 256, 0xC3, 0x9F]


def test_unknown_character_can_be_an_error() -> None:
    tokenizer = CharSpec(unknown="error").fit(iter(["ab"]))
    assert tokenizer.encode("baab") == [1, 0, 0, 1]
    with pytest.raises(TokenizerError, match=r"character 2 of a text is 'c'"):
        tokenizer.encode("abc")


def test_vocabulary_equals_that_of_the_book() -> None:
    if not VERDICT.is_file():
        pytest.skip("needs the-verdict.txt among the shared data")
    text = VERDICT.read_text(encoding="utf-8")
    tokenizer = WordSpec(fallback="unknown", whitespace="drop").fit(iter([text]))
    assert tokenizer.vocab_size == 1132  # 1130 distinct tokens and two special ones
    assert tokenizer.special_tokens == {"<|endoftext|>": 1130, "<|unk|>": 1131}
    vocabulary = {token: index for index, token in enumerate(sorted(set(book_pieces(text))))}
    assert tokenizer.encode(text) == [vocabulary[piece] for piece in book_pieces(text)]
    assert tokenizer.decode(tokenizer.encode(text)) == book_decode(book_pieces(text))


def test_whitespace_is_dropped_as_in_the_book() -> None:
    tokenizer = WordSpec(fallback="unknown", whitespace="drop").fit(iter([STORY]))
    assert tokenizer.decode(tokenizer.encode(STORY)) == book_decode(book_pieces(STORY))
    text = "The wolf,  said <|endoftext|> \n the gate"
    ids = tokenizer.encode(text, allowed_special=["<|endoftext|>"])
    assert tokenizer.decode(ids) == "The <|unk|>, said <|endoftext|> the gate"
    # Otherwise, the text of a special token is an unknown word.
    assert tokenizer.decode(tokenizer.encode(text)) == "The <|unk|>, said <|unk|> the gate"
    stream = tokenizer.stream()
    assert [stream.push(token) for token in ids] == ["The", " <|unk|>", ",", " said", " <|endoftext|>", " the", " gate"]


def test_words_punctuation_and_whitespace_are_tokens() -> None:
    tokenizer = WordSpec(fallback="unknown").fit(iter([STORY]))
    words = [tokenizer.token_bytes(token).decode() for token in tokenizer.encode('said "the gate"--it')]
    assert words == ["said", " ", '"', "the", " ", "gate", '"', "--", "it"]
    assert tokenizer.decode(tokenizer.encode("the wolf  spoke")) == "the <|unk|>  spoke"


def test_hybrid_encodes_unknown_words_as_characters() -> None:
    tokenizer = WordSpec().fit(iter(["the gate ging über"]))
    shown = [tokenizer.token_bytes(token) for token in tokenizer.encode("the üß getting")]
    assert shown == [b"the", b" ", "ü".encode(), b"\xc3", b"\x9f", b" ", b"g", b"e", b"t", b"t", b"i", b"n", b"g"]
    # Bytes, then ü and the words, sorted; ASCII characters are their bytes.
    assert tokenizer.vocab_size == 256 + len(["gate", "ging", "the", "ü", "über"]) + 1


def test_lower_casing_is_not_lossless() -> None:
    tokenizer = WordSpec(lowercase=True).fit(iter(["The THE the Gate"]))
    assert tokenizer.decode(tokenizer.encode("THE Gate Wolf")) == "the gate wolf"
    assert tokenizer.encode("THE") == tokenizer.encode("the")
    assert len(tokenizer.encode("the")) == 1


def test_rare_words_are_removed_first() -> None:
    texts = ["one two two three three three", "two four four four"]
    counted = WordSpec(fallback="unknown", min_count=3).fit(iter(texts))
    assert [token for token in ("one", "two", "three", "four") if counted.encode(token) != counted.encode("none")] == [
        "two",
        "three",
        "four",
    ]
    # "one" is the rarest, whitespace the most frequent; ties are resolved alphabetically.
    bounded = WordSpec(fallback="unknown", max_vocab=2 + 3).fit(iter(texts))
    assert bounded.vocab_size == 5
    assert [bounded.decode([token]) for token in range(3)] == [" ", "four", "three"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"whitespace": "drop"}, "boundaries of words that are encoded as characters"),
        ({"max_vocab": 257}, "above 257"),
        ({"fallback": "unknown", "max_vocab": 2}, "above 2"),
        ({"end_token": "<|unk|>"}, "is reserved"),
        ({"special_tokens": ["a", "a"]}, "listed twice"),
        ({"special_tokens": [""]}, "at least one character"),
        ({"start_token": "\ud800"}, "surrogate|utf-8|valid string"),
    ],
)
def test_contradictions_are_rejected_with_a_reason(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WordSpec.model_validate(fields)


def test_start_and_end_token_may_be_equal() -> None:
    tokenizer = ByteSpec(start_token="<|x|>", end_token="<|x|>", special_tokens=("<|x|>", "<|y|>")).fit(iter(()))
    assert tokenizer.start_id == tokenizer.end_id == 256
    assert tokenizer.vocab_size == 258
