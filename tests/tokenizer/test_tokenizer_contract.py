"""Contract of tokenizers, for every component."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptkit.core.errors import TokenizerError
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec

LOSSLESS = {
    "char-bytes",
    "word",
    "word-small",
    "byte",
    "bpe",
    "bpe-gpt2",
    "bpe-gpt4o",
    "bpe-regex",
    "tiktoken",
    "hf-byte-level",
}
FEATURES = "the if statement, a class and its (own) values: 'x' is x\n\n  if x:\n\tpass -- 12345 + 3.5e-8 is a number"
TEXTS = [
    "",
    " ",
    "the",
    "  the  class ",
    FEATURES,
    "Zwölf\u00a0你好，世界。\r\n🙂👩\u200d👩\u200d👧 é e\u0301",
    "\x00\x1c\x85\u2028\ufeff\ufffd",
]
Fitted = Callable[[str], tuple[TokenizerSpec, Tokenizer]]

checked = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text(" \n\r\tab'.,Aé中🙂1", max_size=60)


def readable(tokenizer: Tokenizer, name: str) -> list[str]:
    """Return the TEXTS that the tokenizer can encode without loss."""
    return [FEATURES, "the class", ""] if name == "char-error" else TEXTS


def test_ids_are_in_range(tokenizer: Tokenizer, name: str) -> None:
    for text in readable(tokenizer, name):
        assert all(0 <= token < tokenizer.vocab_size for token in tokenizer.encode(text))
    assert all(0 <= token < tokenizer.vocab_size for token in tokenizer.special_tokens.values())


def test_known_text_round_trips(tokenizer: Tokenizer, name: str) -> None:
    if name in ("word-drop", "word-lower", "word-unknown"):
        return  # lossy encoding is tested separately
    assert tokenizer.decode(tokenizer.encode(FEATURES)) == FEATURES


def test_lossless_is_declared_correctly(tokenizer: Tokenizer, name: str) -> None:
    assert tokenizer.lossless is (name in LOSSLESS)


@pytest.mark.parametrize("name", sorted(LOSSLESS), indirect=True)
@checked
@given(text=unicode_text)
def test_lossless_tokenizers_round_trip_any_text(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", sorted(LOSSLESS), indirect=True)
def test_every_character_round_trips(tokenizer: Tokenizer) -> None:
    text = "".join(chr(code) for code in itertools.chain(range(0x3000), range(0xE000, 0x10FFFF, 997)))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@checked
@given(data=st.data())
def test_streaming_equals_decoding(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=12))
    stream = tokenizer.stream()
    assert "".join([*map(stream.push, ids), stream.finish()]) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", sorted(LOSSLESS), indirect=True)
def test_streaming_never_emits_incomplete_characters(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream()
    text = "a你好🙂ß世\u0378"
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert stream.finish() == ""


def test_batches_and_threads_equal_single_texts(tokenizer: Tokenizer, name: str) -> None:
    # Enough characters to use threads.
    texts = [*readable(tokenizer, name), *(FEATURES[shift:] * 300 for shift in range(5))]
    single = [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(texts) == single
    assert tokenizer.encode_batch([]) == []
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(tokenizer.encode, texts)) == single
        assert list(pool.map(tokenizer.decode, single)) == [tokenizer.decode(ids) for ids in single]


def test_special_tokens_in_text_require_permission(tokenizer: Tokenizer, name: str) -> None:
    specials = tokenizer.special_tokens
    meaningful = {token: value for token, value in specials.items() if token not in ("<|unk|>", "<unk>")}
    for token, value in meaningful.items():
        text = f"the{token}class {token}"
        if name != "char-error":
            assert not set(tokenizer.encode(text)) & set(meaningful.values())
            assert not set(tokenizer.encode_batch([text])[0]) & set(meaningful.values())
        ids = tokenizer.encode(text, allowed_special=[token])
        assert [one for one in ids if one in specials.values() and one in meaningful.values()] == [value, value]
        assert tokenizer.encode(token, allowed_special=specials)[-1] == value


@pytest.mark.parametrize("name", ["char", "word", "byte", "bpe", "hf-byte-level"], indirect=True)
def test_allowed_special_tokens_match_the_longest_first(tokenizer: Tokenizer) -> None:
    specials = tokenizer.special_tokens
    text = "<|user|>!the<|user|><|endoftext|>"
    short, long, end = marks = [specials[token] for token in ("<|user|>", "<|user|>!", "<|endoftext|>")]
    assert [one for one in tokenizer.encode(text, allowed_special=specials) if one in marks] == [long, short, end]
    ids = tokenizer.encode(text, allowed_special={"<|user|>"})
    assert [one for one in ids if one in marks] == [short, short]
    # Text next to a special token is encoded as if it were alone.
    assert ids == [short, *tokenizer.encode("!the"), short, *tokenizer.encode("<|endoftext|>")]


def test_unknown_special_tokens_are_rejected(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="not a special token"):
        tokenizer.encode("the", allowed_special=["<|nothing|>"])
    with pytest.raises(TokenizerError, match="list of strings"):
        tokenizer.encode("the", allowed_special="<|endoftext|>")


def test_start_and_end_ids(tokenizer: Tokenizer, name: str) -> None:
    starts = {"char-bytes": "<|start|>", "byte": "<|endoftext|>", "hf-sentencepiece": "<s>"}
    ends = {"char-error": None, "hf-sentencepiece": "</s>"}
    for value, expected in ((tokenizer.start_id, starts.get(name)), (tokenizer.end_id, ends.get(name, "<|endoftext|>"))):
        assert value == (None if expected is None else tokenizer.special_tokens[expected])
    if tokenizer.end_id is not None:
        assert tokenizer.end_id not in tokenizer.encode("the class")


@pytest.mark.parametrize("wrong", [-1, None, 10**12])
def test_ids_out_of_range_are_an_error(tokenizer: Tokenizer, wrong: int | None) -> None:
    wrong = tokenizer.vocab_size if wrong is None else wrong
    for call in (
        lambda: tokenizer.decode([0, wrong]),
        lambda: tokenizer.token_bytes(wrong),
        lambda: tokenizer.stream().push(wrong),
    ):
        with pytest.raises(TokenizerError, match=str(wrong)):
            call()


def test_every_id_decodes(tokenizer: Tokenizer) -> None:
    tokenizer.decode(range(tokenizer.vocab_size))
    unknown = {token for token, value in tokenizer.special_tokens.items()}
    for token in unknown:
        assert tokenizer.token_bytes(tokenizer.special_tokens[token]).decode().strip() == token


def test_lone_surrogates_become_the_replacement_character(tokenizer: Tokenizer, name: str) -> None:
    if name == "char-error":
        with pytest.raises(TokenizerError, match="character 4"):
            tokenizer.encode("the \ud800")
        return
    for text in ("a\ud800b", "\udfff", "\udc00\ud800"):
        clean = "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
        assert tokenizer.encode(text) == tokenizer.encode(clean)
        assert tokenizer.encode_batch([text]) == [tokenizer.encode(clean)]
    assert tokenizer.encode("\ud83d\ude42") == tokenizer.encode("🙂")


def test_extreme_texts_are_encoded(tokenizer: Tokenizer, name: str) -> None:
    # Beyond a million characters, regular expressions that backtrack in whitespace have panicked.
    size = 1_100_000 if name.startswith(("bpe", "tiktoken")) else 100_000
    for text in ("a" * size, " " * size + "a", "\n \n" * (size // 3), "ab" * (size // 2) + "\n"):
        decoded = tokenizer.decode(tokenizer.encode(text))
        if name in LOSSLESS or name == "word-lower":
            assert decoded == text


def test_saved_tokenizer_is_loaded_equal(spec: TokenizerSpec, tokenizer: Tokenizer, name: str, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = spec.load(tmp_path)
    assert type(loaded) is type(tokenizer)
    for fact in ("vocab_size", "special_tokens", "start_id", "end_id", "lossless", "leading"):
        assert getattr(loaded, fact) == getattr(tokenizer, fact), fact
    assert [loaded.token_bytes(token) for token in range(loaded.vocab_size)] == [
        tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)
    ]
    for text in readable(tokenizer, name):
        assert loaded.encode(text) == tokenizer.encode(text)
        assert loaded.encode("the" + text, allowed_special=loaded.special_tokens) == tokenizer.encode(
            "the" + text, allowed_special=tokenizer.special_tokens
        )
    again = tmp_path / "again"
    again.mkdir()
    loaded.save(again)
    for path in again.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_damaged_files_are_an_error(spec: TokenizerSpec, tokenizer: Tokenizer, tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.mkdir()
    tokenizer.save(good)
    with pytest.raises(TokenizerError):
        spec.load(tmp_path)
    for path in sorted(good.iterdir()):
        data = path.read_bytes()
        middle = len(data) // 2
        flipped = data[:middle] + bytes((data[middle] ^ 1,)) + data[middle + 1 :]
        for damage in (b"", data[:middle], data[:-3], flipped, b"[]", b"\xff\x00", b"[" * 10**5, None):
            bad = tmp_path / "bad"
            shutil.copytree(good, bad)
            if damage is None:
                (bad / path.name).unlink()
            else:
                (bad / path.name).write_bytes(damage)
            with pytest.raises(TokenizerError, match=path.name):
                spec.load(bad)
            shutil.rmtree(bad)


def test_files_of_another_component_are_an_error(fitted: Fitted, tmp_path: Path) -> None:
    fitted("byte")[1].save(tmp_path)
    with pytest.raises(TokenizerError, match="'byte', not 'char'"):
        fitted("char")[0].load(tmp_path)


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_empty_corpus_is_an_error(spec: TokenizerSpec, name: str, texts: list[str]) -> None:
    assert spec.needs_corpus is name.startswith(("char", "word", "bpe"))
    if spec.needs_corpus:
        with pytest.raises(TokenizerError, match="corpus is empty"):
            spec.fit(iter(texts))


def test_expected_vocab_size_is_an_upper_bound(spec: TokenizerSpec, tokenizer: Tokenizer, name: str) -> None:
    expected = spec.expected_vocab_size
    if name.startswith(("bpe", "tiktoken", "byte")) or name == "word-small":
        assert expected == tokenizer.vocab_size
    else:
        assert expected is None
