"""Special tokens of imported models in their exports, beside what transformers reads from the source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

import gptkit
from gptkit.components.tokenizer.bpe import BpeSpec
from gptkit.interop.formats.gguf.container import GgufFile
from tests.support.external_files import altered, sound

__all__ = ["sound"]

BPE = BpeSpec(vocab_size=260, special_tokens=("<s>", "</s>", "<pad>"))
IDS = BPE.fit(iter(["hello there"])).special_tokens
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<|endoftext|>"}
KEYS = {f"{key}_id": IDS[token] for key, token in TOKENS.items() if key != "unk_token"}


def round_trip(sound: Path, path: Path, config: dict[str, Any], tokens: dict[str, Any]) -> tuple[Path, Path]:
    """Return a source with those keys of config.json and tokenizer_config.json, and its export."""
    source = altered(sound, path, **config)
    (source / "tokenizer.json").write_text(BPE.fit(iter(["hello there"])).to_tokenizer_json())
    (source / "tokenizer_config.json").write_text(json.dumps(tokens))
    gptkit.import_model(source, path / "run")
    gptkit.export_model(path / "run", path / "out")
    return source, path / "out"


@pytest.mark.parametrize("added", [True, False, None])
@pytest.mark.parametrize("first", ["<s>", "</s>"])
def test_special_tokens_are_those_of_the_source(sound: Path, tmp_path: Path, first: str, added: bool | None) -> None:
    tokens: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **TOKENS, "bos_token": first}
    tokens |= {} if added is None else {"add_bos_token": added}
    config = {**KEYS, "bos_token_id": IDS[first]}
    source, out = round_trip(sound, tmp_path, config, tokens)
    written = json.loads((out / "config.json").read_text())
    assert {key: written[key] for key in config} == config
    external, exported = (transformers.AutoTokenizer.from_pretrained(directory) for directory in (source, out))
    for key in TOKENS:
        assert getattr(exported, key) == getattr(external, key) == tokens[key]
    assert exported("hello there").input_ids == external("hello there").input_ids
    exported_config, external_config = (
        transformers.GenerationConfig.from_model_config(_config(each)) for each in (out, source)
    )
    assert exported_config.bos_token_id == external_config.bos_token_id == IDS[first]


def test_id_without_a_token_is_kept(sound: Path, tmp_path: Path) -> None:
    tokens = {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "</s>"}
    _, out = round_trip(sound, tmp_path, KEYS, tokens)
    assert json.loads((out / "config.json").read_text())["bos_token_id"] == IDS["<s>"]
    assert transformers.AutoTokenizer.from_pretrained(out).bos_token is None


def test_tokens_that_only_the_class_names_are_those_of_the_configuration(sound: Path, tmp_path: Path) -> None:
    _, out = round_trip(sound, tmp_path, KEYS, {"tokenizer_class": "GPT2Tokenizer"})
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert tokenizer("hello").input_ids[0] != IDS["<s>"]


def test_start_token_of_generation_is_that_of_the_configuration(sound: Path, tmp_path: Path) -> None:
    source = altered(sound, tmp_path, bos_token_id=None)
    (source / "tokenizer.json").write_text(BPE.fit(iter(["hello there"])).to_tokenizer_json())
    (source / "generation_config.json").write_text(json.dumps({"bos_token_id": 5}))
    gptkit.import_model(source, tmp_path / "run")
    gptkit.export_model(tmp_path / "run", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["bos_token_id"] == 5


def test_start_token_reaches_gguf(sound: Path, tmp_path: Path) -> None:
    tokens = {**TOKENS, "add_bos_token": False}
    round_trip(sound, tmp_path, KEYS, tokens)
    gptkit.export_model(tmp_path / "run", tmp_path / "model.gguf")
    metadata = GgufFile(tmp_path / "model.gguf").metadata
    assert metadata["tokenizer.ggml.bos_token_id"] == IDS["<s>"]
    assert metadata["tokenizer.ggml.add_bos_token"] is False


def _config(directory: Path) -> Any:
    return transformers.AutoConfig.from_pretrained(directory)
