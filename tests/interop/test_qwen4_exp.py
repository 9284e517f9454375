"""Qwen 4 Exp: tables of n-grams in parts, the id that n-grams end with, types of layers, and what is refused."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gptkit
from gptkit.core.errors import ExternalModelError, GptkitError
from gptkit.interop.conversion import families, read_model
from gptkit.runs.exporting import export
from tests.support.parity import distance, logits_of, random_ids
from tests.support.tiny_models import QWEN4

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


def saved(directory: Path, **options: Any) -> Any:
    """Return a model of transformers with random weights, which is saved in the directory."""
    torch.manual_seed(1)
    config = transformers.Qwen4ExpTextConfig(**{**QWEN4, **options})
    model = transformers.Qwen4ExpForCausalLM._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.2)
    with redirect_stderr(io.StringIO()):
        model.save_pretrained(directory)
    return model


def imported(tmp_path: Path) -> Any:
    return gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")


@torch.no_grad()
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_tables_in_parts_are_joined(tmp_path: Path, parts: int) -> None:
    model = saved(tmp_path / "external", split_ngram_parts=parts)
    names = [name for name in load_file(tmp_path / "external" / "model.safetensors") if "layers.0.ple" in name]
    assert sum("shard_" in name for name in names) == parts
    assert distance(imported(tmp_path).model(random_ids()).logits, logits_of(model, random_ids())) < 1e-5


@torch.no_grad()
def test_model_without_an_indexer_is_read_and_exported(tmp_path: Path) -> None:
    model = saved(tmp_path / "external", layer_types=["linear_attention"] * 5)
    run, tokens = imported(tmp_path), random_ids()
    assert distance(run.model(tokens).logits, logits_of(model, tokens)) < 1e-4
    export(tmp_path / "run", tmp_path / "out", family="qwen4-exp")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert distance(logits_of(again, tokens), logits_of(model, tokens)) < 1e-4


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "external")
    file = tmp_path / "external" / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if not name.endswith("shard_0.weight")}
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(GptkitError, match=r"tensors are missing: model\.layers\.0\.ple\.ple_embedding\.ngram_embedding"):
        imported(tmp_path)


@torch.no_grad()
def test_stored_factors_of_the_hash_are_used(tmp_path: Path) -> None:
    model = saved(tmp_path / "external")
    file = tmp_path / "external" / "model.safetensors"
    tensors = load_file(file)
    factors = model.model.layers[0].ple.ple_embedding.layer_multipliers
    factors.add_(2)
    tensors["model.layers.0.ple.ple_embedding.layer_multipliers"] = factors.clone()
    save_file(tensors, file, {"format": "pt"})
    assert distance(imported(tmp_path).model(random_ids()).logits, logits_of(model, random_ids())) < 1e-5


def test_exports_have_the_id_that_ngrams_end_with(tmp_path: Path) -> None:
    """Whatever the end of a text is for the tokenizer."""
    saved(tmp_path / "external", eos_token_id=[7, 9])
    imported(tmp_path)
    gptkit.export_model(tmp_path / "run", tmp_path / "exported")
    ids = json.loads((tmp_path / "exported" / "config.json").read_text())["eos_token_id"]
    assert ids == 7 or ids[0] == 7


@torch.no_grad()
def test_training_an_imported_model_lowers_its_loss(tmp_path: Path) -> None:
    saved(tmp_path / "external")
    run = imported(tmp_path)
    model = run.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    ids = random_ids()
    losses = []
    with torch.enable_grad():
        for _ in range(8):
            loss = model(ids[:, :-1], ids[:, 1:]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_gate_type": "sigmoid"}, "output_gate_type"),
        ({"indexer_kv_heads": 2}, "one key of the indexer"),
        ({"indexer_budget": 9}, "a multiple of indexer_compress_ratio"),
        ({"hc_count": 1}, "two or more residual streams"),
        ({"ple_layer_ids": [4]}, "layers with linear attention"),
        ({"ple_layer_ids": [6]}, "layers with linear attention"),
        ({"eos_token_id": None}, "the id that n-grams do not reach over"),
        ({"indexer_head_dim": 8}, "d_index"),
        ({"indexer_n_heads": None}, "indexer_n_heads"),
        ({"layer_types": ["sliding_attention"] * 5}, "layer_types"),
    ],
)
def test_other_values_are_refused(changes: dict[str, Any], message: str) -> None:
    family = families()["qwen4-exp"]
    with pytest.raises(ExternalModelError, match=message):
        read_model(family, {**QWEN4, "model_type": "qwen4_exp_text", **changes})


@torch.no_grad()
def test_language_model_of_a_multimodal_model_is_read(tmp_path: Path) -> None:
    torch.manual_seed(1)
    sizes = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 48}
    config = transformers.Qwen4ExpConfig(text_config=QWEN4, vision_config=sizes)
    config.text_config._attn_implementation = "eager"
    model = transformers.Qwen4ExpForConditionalGeneration(config).eval()
    with redirect_stderr(io.StringIO()):
        model.save_pretrained(tmp_path / "external")
    assert distance(imported(tmp_path).model(random_ids()).logits, logits_of(model, random_ids())) < 1e-5


def test_types_of_layers_are_read() -> None:
    family = families()["qwen4-exp"]
    spec = read_model(family, {**QWEN4, "full_attention_interval": 2})
    names = [layer.attention.name for layer in spec.layer_specs()]
    assert names == ["gated-delta", "pooled-sparse", "gated-delta", "pooled-sparse", "gated-delta"]
    without = read_model(family, {**QWEN4, "ple_layer_ids": None, "eos_token_id": None})
    assert {layer.block.name for layer in without.layer_specs()} == {"gated-hyper-connections"}
