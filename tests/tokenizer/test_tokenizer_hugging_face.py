"""Tokenizer `hugging-face` against the library's own encoding and decoding, and against hostile files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Core

from gptkit.components.tokenizer.hugging_face import HuggingFaceSpec, HuggingFaceTokenizer
from gptkit.core.errors import TokenizerError

ALPHABET = [*"abcdefghij    \n\n\t.,'\"12345é中🙂ñ\u0301ß", "the", " of", "class", " statement", "<think>"]


def random_text(seed: int) -> str:
    return "".join(random.Random(seed).choices(ALPHABET, k=200))


def open_core(core: Core, directory: Path, **fields: Any) -> HuggingFaceTokenizer:
    core.save(str(directory / "tokenizer.json"))
    return open_directory(directory, **fields)


def open_directory(directory: Path, **fields: Any) -> HuggingFaceTokenizer:
    tokenizer = HuggingFaceSpec(path=str(directory), **fields).fit(iter(()))
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    return tokenizer


def plain(path: str) -> HuggingFaceSpec:
    return HuggingFaceSpec(path=path)


@pytest.mark.parametrize("style", ["byte_level", "sentencepiece"])
def test_encoding_and_decoding_equal_the_library(style: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    core: Core = request.getfixturevalue(style)
    actual = open_core(core, tmp_path)
    for text in ("", " ", "a", " the", "  the class", *map(random_text, range(40))):
        ids = core.encode(text, add_special_tokens=False).ids
        assert actual.encode(text) == ids
        assert actual.decode(ids) == core.decode(ids, skip_special_tokens=False)
        stream = actual.stream()
        assert "".join([*map(stream.push, ids), stream.finish()]) == core.decode(ids, skip_special_tokens=False)


def test_continued_prompt_keeps_its_space(sentencepiece: Core, tmp_path: Path) -> None:
    actual = open_core(sentencepiece, tmp_path)
    text = "the class statement of the class"
    ids = actual.encode(text)
    spaced = [cut for cut in range(1, len(ids)) if actual.token_bytes(ids[cut]).startswith(b" ")]
    assert spaced
    for cut in spaced:
        stream = actual.stream()
        before = "".join(map(stream.push, ids[:cut]))
        after = "".join(map(stream.push, ids[cut:]))
        assert before + after == text
        assert after == " " + actual.decode(ids[cut:])


def test_metaspace_is_decoded(tmp_path: Path) -> None:
    words = ["<unk>", "▁", "▁the", "▁class", "s", "."]
    core = Core(models.Unigram([(word, -float(index)) for index, word in enumerate(words)], unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    actual = open_core(core, tmp_path)
    for text in ("the class", "  the classs.", "the"):
        ids = core.encode(text).ids
        assert actual.decode(ids) == core.decode(ids)  # which loses one of two leading spaces


def test_allowed_special_tokens_equal_the_library(sentencepiece: Core, tmp_path: Path) -> None:
    actual = open_core(sentencepiece, tmp_path)
    text = "<s>the class</s>the"
    assert actual.encode(text, allowed_special=["<s>", "</s>"]) == sentencepiece.encode(text, add_special_tokens=False).ids
    assert actual.encode(text)[0] not in actual.special_tokens.values()


def test_added_tokens_that_are_not_special_are_always_recognized(byte_level: Core, tmp_path: Path) -> None:
    actual = open_core(byte_level, tmp_path)
    assert "<think>" not in actual.special_tokens
    assert actual.encode("a<think>")[-1] == byte_level.token_to_id("<think>")
    assert actual.decode(actual.encode("a<think>")) == "a<think>"


def test_texts_are_neither_truncated_nor_padded(byte_level: Core, tmp_path: Path) -> None:
    byte_level.enable_truncation(4)
    byte_level.enable_padding(length=64)
    actual = open_core(byte_level, tmp_path)
    text = "the class statement of a language"
    assert actual.decode(actual.encode(text)) == text
    assert actual.encode_batch([text, "a"]) == [actual.encode(text), actual.encode("a")]
    assert len(actual.encode("a")) == 1


def test_start_and_end_come_from_the_config(byte_level: Core, tmp_path: Path) -> None:
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"bos_token": "<|user|>", "eos_token": {"content": "<|endoftext|>", "lstrip": False}}))
    actual = open_core(byte_level, tmp_path)
    assert actual.end_id == byte_level.token_to_id("<|endoftext|>")
    assert actual.start_id is None  # defined, but no setting adds it before a text
    byte_level.post_processor = processors.TemplateProcessing(
        "<|user|> $A", None, [("<|user|>", actual.special_tokens["<|user|>"])]
    )
    actual = open_core(byte_level, tmp_path)
    assert actual.start_id == byte_level.token_to_id("<|user|>")
    assert actual.encode("a") == byte_level.encode("a", add_special_tokens=False).ids  # but not by encode
    assert open_directory(tmp_path, start_token="", end_token="").start_id is None
    assert open_directory(tmp_path, start_token="", end_token="").end_id is None
    config.write_text(json.dumps({"bos_token": "<|user|>", "add_bos_token": False}))
    assert open_directory(tmp_path).start_id is None
    assert open_directory(tmp_path, start_token="<|user|>!").start_id == byte_level.token_to_id("<|user|>!")


def test_end_token_is_always_special(byte_level: Core, tmp_path: Path) -> None:
    actual = open_core(byte_level, tmp_path, end_token="<think>")
    assert actual.special_tokens["<think>"] == actual.end_id == byte_level.token_to_id("<think>")
    assert actual.end_id not in actual.encode("a<think>")
    with pytest.raises(TokenizerError, match="start or end token '<none>'"):
        open_directory(tmp_path, end_token="<none>")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ messages }}", "{{ messages }}"),
        ([{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}], "D"),
        (None, None),
        (3, None),
    ],
)
def test_chat_template_is_saved(byte_level: Core, tmp_path: Path, template: Any, expected: str | None) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    actual = open_core(byte_level, tmp_path)
    assert actual.chat_template == expected
    run = tmp_path / "run"
    run.mkdir()
    actual.save(run)
    loaded = plain("somewhere/else").load(run)
    assert isinstance(loaded, HuggingFaceTokenizer)
    assert loaded.chat_template == expected
    (tmp_path / "chat_template.jinja").write_text("from its own file")
    assert open_directory(tmp_path).chat_template == "from its own file"


def test_normalizing_tokenizers_are_not_lossless(byte_level: Core, tmp_path: Path) -> None:
    assert open_core(byte_level, tmp_path).lossless
    byte_level.normalizer = normalizers.NFC()
    assert not open_core(byte_level, tmp_path).lossless
    byte_level.normalizer = None
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert not open_core(byte_level, tmp_path).lossless
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.add_tokens([AddedToken("<strips>", rstrip=True, special=False)])
    assert not open_core(byte_level, tmp_path).lossless


def test_decoders_that_depend_on_neighbors_are_rejected(tmp_path: Path) -> None:
    core = Core(models.WordPiece({"a": 0, "##b": 1, "[UNK]": 2}))
    for decoder in (decoders.WordPiece(), None, decoders.CTC()):
        core.decoder = decoder
        with pytest.raises(TokenizerError, match=r"tokenizer.json: .*decode"):
            open_core(core, tmp_path)


def test_text_that_cannot_be_encoded_is_an_error(tmp_path: Path) -> None:
    core = Core(models.WordLevel({"a": 0}, unk_token="[UNK]"))
    core.decoder = decoders.Fuse()
    actual = open_core(core, tmp_path)
    with pytest.raises(TokenizerError, match="cannot be encoded"):
        actual.encode("b")
    with pytest.raises(TokenizerError, match="cannot be encoded"):
        actual.encode_batch(["a", "b"])


def test_missing_files_are_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(TokenizerError, match="cannot be read"):
            plain(str(path)).fit(iter(()))


def test_hostile_files_are_rejected_or_read(byte_level: Core, tmp_path: Path) -> None:
    good = byte_level.to_str()
    path = tmp_path / "tokenizer.json"
    for bad in ("", "{", "[]", "null", "{}", good[: len(good) // 2], "[" * 10**5, '{"model": {"type": "BPE"}}', "\x00"):
        path.write_text(bad)
        with pytest.raises(TokenizerError, match=r"tokenizer.json"):
            plain(str(tmp_path)).fit(iter(()))
    path.write_bytes(b"\xff\xfe" + good.encode())
    with pytest.raises(TokenizerError):
        plain(str(tmp_path)).fit(iter(()))
    parts = json.loads(good)
    rng = random.Random(0)
    worked = 0
    for _ in range(150):
        mutated = json.loads(json.dumps({**parts, "model": {**parts["model"], "merges": parts["model"]["merges"][:5]}}))
        target, key = rng.choice([(holder, key) for holder in _holders(mutated) for key in holder])
        target[key] = rng.choice([None, -1, 2**31, "x", [], {}, True, 1.5])
        path.write_text(json.dumps(mutated))
        try:
            tokenizer = plain(str(tmp_path)).fit(iter(()))
            tokenizer.decode(tokenizer.encode("the class"))
            worked += 1
        except TokenizerError:
            pass
    assert 0 < worked < 150


def _holders(value: Any) -> list[dict[str, Any]]:
    result = []
    if isinstance(value, dict):
        result.append(value)
        for key, inner in value.items():
            result += _holders(inner) if key != "vocab" else []
    elif isinstance(value, list):
        for inner in value:
            result += _holders(inner)
    return result


@pytest.mark.parametrize("content", ["{", "[1]", "[" * 10**5])
def test_damaged_config_is_an_error(byte_level: Core, tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(TokenizerError, match=r"tokenizer_config.json"):
        open_core(byte_level, tmp_path)
