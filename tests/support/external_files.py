"""A small model in the files of another program, and altered copies of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import gptkit

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": True,
    "vocab_size": 260,
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model that can be imported."""
    directory = tmp_path_factory.mktemp("sound") / "model"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    shapes = {"model.embed_tokens": (260, 16), "model.norm": (16,)}
    for layer in ("model.layers.0", "model.layers.1"):
        shapes |= {f"{layer}.input_layernorm": (16,), f"{layer}.post_attention_layernorm": (16,)}
        shapes |= {f"{layer}.self_attn.{p}_proj": (16, 16) for p in "qo"}
        shapes |= {f"{layer}.self_attn.{p}_proj": (8, 16) for p in "kv"}
        shapes |= {f"{layer}.mlp.{p}_proj": (24, 16) for p in ("gate", "up")} | {f"{layer}.mlp.down_proj": (16, 24)}
    save_file({f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}, directory / "model.safetensors")
    return directory


def take(directory: Path, run: Path) -> None:
    gptkit.import_model(directory, run, tokenizer="byte")


def altered(sound: Path, tmp_path: Path, **changes: Any) -> Path:
    directory = tmp_path / "external"
    shutil.copytree(sound, directory)
    config = {key: value for key, value in {**CONFIG, **changes}.items() if value != "absent"}
    (directory / "config.json").write_text(json.dumps(config))
    return directory
