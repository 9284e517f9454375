"""Untrusted files: damaged and malicious files cause one clear error and leave no files."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import gptkit
from gptkit.core.errors import GptkitError
from tests.support.external_files import altered, take

YARN = {"rope_type": "yarn", "factor": 2.0}


def test_valid_model_is_imported(sound: Path, tmp_path: Path) -> None:
    take(sound, tmp_path / "run")
    assert (tmp_path / "run" / "spec.yaml").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"model_type": "absent"}, "no 'model_type'"),
        ({"hidden_size": "sixteen"}, "hidden_size should be a whole number, not the text 'sixteen'"),
        ({"hidden_size": True}, "hidden_size should be a whole number, not the truth value true"),
        ({"vocab_size": "absent"}, "no 'vocab_size'"),
        ({"num_attention_heads": 0}, "n_heads"),
        ({"num_key_value_heads": 3}, "not a multiple of n_kv_heads 3"),
        ({"hidden_act": "mish"}, "hidden_act is the text 'mish'"),
        ({"rope_parameters": {"rope_type": "spiral"}}, "rope_type is the text 'spiral'"),
        ({"rope_parameters": {"rope_type": "default", "twist": 2}}, "rope_parameters has unknown keys: .*twist"),
        (
            {"rope_parameters": "absent", "rope_scaling": {"type": "ntk", "factor": 2.0}},
            "rope_scaling: type is the text 'ntk'",
        ),
        ({"rope_parameters": {"rope_type": "linear", "type": "yarn", "factor": 2.0}}, "rope_type is .*linear.* and type is"),
        (
            {"rope_parameters": {**YARN, "original_max_position_embeddings": 16}, "original_max_position_embeddings": 8},
            "original_max_position_embeddings is the number 8: .*rope_parameters has 16",
        ),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"num_hidden_layers": 3}, "missing: model.layers.2.input_layernorm.weight"),
        ({"num_hidden_layers": 1}, "does not describe.*model.layers.1"),
        ({"intermediate_size": 32}, r"gate_proj.weight is \[24, 16\], and the configuration requires \[32, 16\]"),
        ({"vocab_size": 2**31}, r"and the configuration requires \[2147483648, 16\]"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers is the number 1000000000000"),
    ],
)
def test_each_error_is_named(sound: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GptkitError, match=f"(?s){message}"):
        take(altered(sound, tmp_path, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_index_cannot_name_files_outside_its_directory(sound: Path, tmp_path: Path) -> None:
    directory = altered(sound, tmp_path)
    (directory / "model.safetensors").rename(tmp_path / "away.safetensors")
    index = {"weight_map": {"model.norm.weight": "../away.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(GptkitError, match="outside of its directory"):
        take(directory, tmp_path / "run")


def test_shards_are_read_together(sound: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    directory = altered(sound, tmp_path)
    whole = load_file(directory / "model.safetensors")
    names = sorted(whole)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: whole[name].clone() for name in held}, directory / file)
    weight_map = {name: file for file, held in parts.items() for name in held}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (directory / "model.safetensors").unlink()
    run = gptkit.import_model(directory, tmp_path / "run", tokenizer="byte")
    assert torch.equal(run.model.embedding.table.weight, whole["model.embed_tokens.weight"])


@pytest.mark.parametrize("seed", range(6))
def test_damage_anywhere_gives_one_clear_error(sound: Path, tmp_path: Path, seed: int) -> None:
    """With flipped, removed and repeated bytes, the import succeeds or reports an error without leaving a partial run."""
    chance = random.Random(seed)
    directory, refused = altered(sound, tmp_path), 0
    for file in ("config.json", "model.safetensors"):
        whole = (sound / file).read_bytes()
        for _ in range(20):
            data = bytearray(whole)
            # Only damage in the header of a tensor file is detectable; a changed weight is still a weight.
            where = chance.randrange(min(len(data), 2000))
            match chance.randrange(4):
                case 0:
                    data[where] = chance.randrange(256)
                case 1:
                    data = data[:where]
                case 2:
                    data[where:where] = data[where : where + chance.randrange(1, 30)]
                case _:
                    del data[where : where + chance.randrange(1, 30)]
            (directory / file).write_bytes(data)
            run = tmp_path / "run"
            try:
                take(directory, run)
                shutil.rmtree(run)
            except GptkitError:
                refused += 1
                assert not (run / "spec.yaml").exists()
        (directory / file).write_bytes(whole)
    assert refused > 20
