"""Files that cannot be imported as they are: the message names the cause, and wrapped or sharded weights are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gptkit
from gptkit.components.tokenizer.bpe import BpeSpec
from gptkit.core.errors import GptkitError
from tests.support.external_files import altered, sound, take

__all__ = ["sound"]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 12345\n"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_git_lfs_pointers_are_reported(sound: Path, tmp_path: Path, name: str) -> None:
    directory = altered(sound, tmp_path)
    (directory / name).write_text(POINTER)
    with pytest.raises(GptkitError, match=rf"{name} is a Git LFS pointer(?s:.*)lfs pull"):
        gptkit.import_model(directory, tmp_path / "run", **({} if name == "tokenizer.json" else {"tokenizer": "byte"}))


def test_gguf_file_that_is_a_git_lfs_pointer_is_reported(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text(POINTER)
    with pytest.raises(GptkitError, match="Git LFS pointer"):
        gptkit.import_model(tmp_path / "model.gguf", tmp_path / "run", format="gguf")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "base_model.model.", "model.", "llm."])
def test_prefixes_of_wrappers_are_removed(sound: Path, tmp_path: Path, prefix: str) -> None:
    directory = altered(sound, tmp_path)
    tensors = load_file(directory / "model.safetensors")
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, directory / "model.safetensors")
    run = gptkit.import_model(directory, tmp_path / "run", tokenizer="byte")
    table_VE = run.model.embedding.table_VE.detach()
    assert torch.equal(table_VE, tensors["model.embed_tokens.weight"])


def test_numbered_shards_need_no_index(sound: Path, tmp_path: Path) -> None:
    directory = altered(sound, tmp_path)
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(tensors)
    for number, part in enumerate((names[:5], names[5:]), 1):
        save_file({name: tensors[name] for name in part}, directory / f"model-0000{number}-of-00002.safetensors")
    take(directory, tmp_path / "run")
    (directory / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(GptkitError, match=r"is incomplete: it has model-00001-of-00002\.safetensors"):
        take(directory, tmp_path / "other")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickle_files_are_rejected(sound: Path, tmp_path: Path, name: str) -> None:
    directory = altered(sound, tmp_path)
    (directory / "model.safetensors").rename(directory / name)
    with pytest.raises(GptkitError, match=rf"pickle files \({name}\)(?s:.*)save_pretrained"):
        take(directory, tmp_path / "run")


def test_settings_of_a_chat_model_round_trip(sound: Path, tmp_path: Path) -> None:
    directory = altered(sound, tmp_path, eos_token_id=[1, 2], pad_token_id=3)
    spec = BpeSpec(vocab_size=260, special_tokens=("<|done|>", "<pad>"))
    text = spec.fit(iter(["hello there"])).to_tokenizer_json()
    (directory / "tokenizer.json").write_text(text)
    settings: dict[str, Any] = {"pad_token": "<pad>", "padding_side": "left", "model_max_length": 32}
    (directory / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": {"content": "<pad>"}}))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2], "temperature": 0.6}))
    gptkit.import_model(directory, tmp_path / "run")
    gptkit.export_model(tmp_path / "run", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert {key: written[key] for key in settings} == settings
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["eos_token_id"], config["pad_token_id"]) == ([1, 2], 3)
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation == {"eos_token_id": [1, 2], "temperature": 0.6}


def test_end_of_turn_of_the_template_is_exported_by_default(sound: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    directory = altered(sound, tmp_path)
    words = BpeSpec(vocab_size=260, special_tokens=("<|done|>",)).fit(iter(["hello there"]))
    (directory / "tokenizer.json").write_text(words.to_tokenizer_json())
    template = "{% for m in messages %}{{ m.content }}<|done|>{% endfor %}"
    config = {"chat_template": template, "eos_token": "<|endoftext|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    gptkit.import_model(directory, tmp_path / "run")
    gptkit.export_model(tmp_path / "run", tmp_path / "out")
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert words.special_tokens["<|done|>"] in generation["eos_token_id"]
    assert words.special_tokens["<|endoftext|>"] in generation["eos_token_id"]


def test_flipped_bytes_of_weights_are_detected(sound: Path, tmp_path: Path) -> None:
    take(sound, tmp_path / "run")
    weights = next((tmp_path / "run" / "checkpoints").rglob("model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(data)
    for action in (lambda: gptkit.load(tmp_path / "run"), lambda: gptkit.export_model(tmp_path / "run", tmp_path / "out")):
        with pytest.raises(GptkitError, match="its content is not what was saved"):
            action()


@pytest.mark.parametrize(
    ("config", "generation", "ends"),
    [([1, 2], None, [1, 2]), (1, {"eos_token_id": [2, 3]}, [2, 3]), (2, {"temperature": 0.5}, [2]), (None, None, [])],
)
def test_ends_are_those_of_generation_config_or_else_of_config(
    sound: Path, tmp_path: Path, config: Any, generation: Any, ends: list[int]
) -> None:
    directory = altered(sound, tmp_path, eos_token_id=config)
    words = BpeSpec(vocab_size=260, special_tokens=("<|done|>",)).fit(iter(["hello there"]))
    (directory / "tokenizer.json").write_text(words.to_tokenizer_json())
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))
    assert gptkit.import_model(directory, tmp_path / "run").ends == ends
    # The same ids are different tokens in another tokenizer.
    assert gptkit.import_model(directory, tmp_path / "other", tokenizer="byte").ends == []
