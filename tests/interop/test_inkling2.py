"""Inkling 2: names of released files, types of layers, rows without a logit, and keys that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gptkit
from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import families, read_model
from tests.support.parity import distance, logits_of, make, random_ids
from tests.support.tiny_models import INKLING2, VOCAB

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


def read(**changes: Any) -> Any:
    family = next(each for each in families().values() if each.model_type == "inkling2_text")
    config = transformers.Inkling2TextConfig(**INKLING2).to_dict()
    return read_model(family, {**config, "architectures": [family.architecture], **changes})


@torch.no_grad()
def test_files_with_names_of_modules_are_read_as_released_ones(tmp_path: Path) -> None:
    make("inkling2_text", tmp_path / "released")
    file = tmp_path / "released" / "model.safetensors"
    assert "model.llm.layers.1.attn.k_sconv.static_w" in load_file(file)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "released", attn_implementation="eager").eval()
    run = gptkit.import_model(tmp_path / "released", tmp_path / "run", tokenizer="byte")
    ids = random_ids()
    assert distance(run.model(ids).logits, logits_of(model, ids)) < 1e-5
    exported = gptkit.export_model(tmp_path / "run", tmp_path / "exported")
    assert "model.layers.1.self_attn.k_sconv.static_weight" in load_file(exported / "model.safetensors")
    again = gptkit.import_model(exported, tmp_path / "again", tokenizer="byte")
    assert torch.equal(again.model(ids).logits, run.model(ids).logits)


def test_experts_with_scales_are_refused(tmp_path: Path) -> None:
    make("inkling2_text", tmp_path / "external")
    file = tmp_path / "external" / "model.safetensors"
    name = "model.llm.layers.0.mlp.experts.w13_weight"
    tensors = load_file(file)
    save_file({**tensors, f"{name}_scale": torch.ones(5)}, file, metadata={"format": "pt"})
    with pytest.raises(ExternalModelError, match="w13_weight_scale"):
        gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")


@torch.no_grad()
def test_rows_without_a_logit_are_not_read(tmp_path: Path) -> None:
    make("inkling2_text-scaled", tmp_path / "external")
    run = gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    assert run.model.vocab_size == VOCAB - 7
    exported = gptkit.export_model(tmp_path / "run", tmp_path / "exported")
    config = json.loads((exported / "config.json").read_text())
    assert config["vocab_size"] == config["unpadded_vocab_size"] == VOCAB - 7


def test_types_of_layers_have_their_heads_window_position_and_block() -> None:
    layers = read(log_scaling_n_floor=30).layer_specs()[:3]
    assert [layer.attention.window for layer in layers] == [6, None, 6]
    assert [(layer.attention.n_heads, layer.attention.kv_heads, layer.attention.d_head) for layer in layers][:2] == [
        (6, 3, 8),
        (6, 2, 12),
    ]
    assert [layer.attention.relative_extent for layer in layers] == [6, 9, 6]
    assert [layer.attention.kv_conv_form for layer in layers] == ["scaled", "dynamic", "scaled"]
    assert [layer.block.kv_inputs for layer in layers] == [False, True, False]
    assert [layer.position.name for layer in layers] == ["none", "query-temperature", "none"]


def test_layers_without_types_are_those_of_transformers() -> None:
    options = {key: value for key, value in INKLING2.items() if key != "layer_types"}
    config = transformers.Inkling2TextConfig(**{**options, "num_hidden_layers": 8})
    own = read(num_hidden_layers=8, layer_types=None).layer_specs()
    assert [layer.attention.window is not None for layer in own] == [each == "hybrid_sliding" for each in config.layer_types]


def test_other_names_of_keys_are_read() -> None:
    names = {"sconv_kernel_size": "conv_kernel_size", "sliding_window": "sliding_window_size"}
    names |= {"num_local_experts": "n_routed_experts", "intermediate_size": "moe_intermediate_size"}
    names |= {"model_max_length": "max_position_embeddings", "routed_scaling_factor": "route_scale"}
    values = {"sconv_kernel_size": 2, "sliding_window": 5, "num_local_experts": 7, "intermediate_size": 4}
    values |= {"model_max_length": 48, "routed_scaling_factor": 2.0}
    absent = dict.fromkeys(names.values())
    assert read(**values, **absent) == read(**{names[key]: each for key, each in values.items()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is the text 'gelu': transformers does not read it"),
        ({"scoring_func": "softmax"}, "scoring_func is the text 'softmax': the family reads"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is .*true: transformers does not"),
        ({"unpadded_vocab_size": 0}, "unpadded_vocab_size is the number 0"),
        ({"layer_types": ["full_attention"] * 5}, "layer_types is .*it should name hybrid or hybrid_sliding"),
        ({"conv_kernel_size": 3, "sconv_kernel_size": 4}, "two names of one setting"),
        ({"use_sconv": False}, "unknown keys: 'use_sconv'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_other_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ExternalModelError, match=message):
        read(**changes)
