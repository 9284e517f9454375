"""Tokenizers exported as tokenizer.json: equal token ids in the tokenizers library and transformers."""

from __future__ import annotations

import json
import pydoc_data.topics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

import gptkit
from gptkit.core.errors import TokenizerError
from gptkit.core.registry import default_registry
from gptkit.kinds.tokenizer import Tokenizer

TEXTS = [text for _, text in sorted(pydoc_data.topics.topics.items())][:6]


def fitted(name: str, **fields: Any) -> Tokenizer:
    spec: Any = default_registry().component("tokenizer", name).model_validate({"name": name, **fields})
    made: Tokenizer = spec.fit(iter(TEXTS))
    return made


NATIVE = {
    "bpe": fitted("bpe", vocab_size=600),
    "bpe-gpt2": fitted("bpe", vocab_size=500, pattern="gpt2"),
    "byte": fitted("byte"),
    "char": fitted("char"),
    "char-bytes": fitted("char", unknown="bytes"),
    "word": fitted("word"),
    "word-unknown": fitted("word", fallback="unknown"),
    "word-lower": fitted("word", fallback="unknown", whitespace="drop", lowercase=True, min_count=2),
}
EXTERNAL = {name: Library.from_str(made.to_tokenizer_json()) for name, made in NATIVE.items()}


@pytest.mark.parametrize("name", list(NATIVE))
@settings(max_examples=60, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=60), st.sampled_from(TEXTS).flatmap(lambda t: st.integers(0, 2000).map(lambda i: t[i : i + 300]))
    )
)
def test_library_gives_equal_token_ids(name: str, text: str) -> None:
    assert EXTERNAL[name].encode(text, add_special_tokens=False).ids == NATIVE[name].encode(text)
    ids = NATIVE[name].encode(text)
    assert EXTERNAL[name].decode(ids, skip_special_tokens=False) == NATIVE[name].decode(ids)


@pytest.mark.parametrize("name", list(NATIVE))
def test_special_tokens_keep_their_ids(name: str) -> None:
    for text, number in NATIVE[name].special_tokens.items():
        assert EXTERNAL[name].token_to_id(text) == number
    assert EXTERNAL[name].get_vocab_size() == NATIVE[name].vocab_size


def test_tokenizers_that_the_library_cannot_express_are_rejected_with_the_reason() -> None:
    with pytest.raises(TokenizerError, match=r"lower-casing in tokenizer\.json has no final sigma"):
        fitted("word", lowercase=True).to_tokenizer_json()
    words: Any = default_registry().component("tokenizer", "word").model_validate({"name": "word"})
    with pytest.raises(TokenizerError, match=r"its vocabulary contains 'a<0x41>', and .* names bytes"):
        words.fit(iter(["a<0x41> b"])).to_tokenizer_json()
    for name in ("char", "word"):
        with pytest.raises(TokenizerError, match="not a byte-level pair encoding"):
            fitted(name).byte_pairs()


def test_characters_outside_the_corpus_are_errors_in_the_library_too() -> None:
    made = fitted("char", unknown="error")
    library = Library.from_str(made.to_tokenizer_json())
    assert library.encode("with").ids == made.encode("with")
    with pytest.raises(Exception, match="UNK"):
        library.encode("☃")


def test_names_of_bytes_in_a_text_are_characters() -> None:
    for name in ("char-bytes", "word"):
        for text in ("<0x41>", "a <0xFF><0x00>b", "☃<0x41>"):
            assert EXTERNAL[name].encode(text).ids == NATIVE[name].encode(text)


def test_transformers_loads_the_tokenizer_of_an_exported_run(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    spec = {
        "tokenizer": {"name": "bpe", "vocab_size": 400},
        "model": {"d_model": 16, "n_layers": 1, "context_length": 32, "attention": {"n_heads": 2}},
        "training": {"steps": 1, "batch_size": 1},
    }
    run = gptkit.train(spec, tmp_path / "run", progress=False)
    directory = gptkit.export_model(run.directory, tmp_path / "out")
    loaded = transformers.AutoTokenizer.from_pretrained(directory)
    text = "The with statement, 3 times.\n"
    assert loaded(text, add_special_tokens=False)["input_ids"] == run.tokenizer.encode(text)
    assert json.loads((directory / "tokenizer_config.json").read_text())["eos_token"] in run.tokenizer.special_tokens
