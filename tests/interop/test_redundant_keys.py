"""Redundant keys of a configuration: read as in transformers, or rejected if they differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import families, read_model
from tests.support.tiny_models import LLAMA, MODELS

transformers = pytest.importorskip("transformers")
LINEAR = {"rope_type": "linear", "factor": 4.0}


def read(model_type: str, **keys: Any) -> Any:
    family = next(each for each in families().values() if each.model_type == model_type)
    kind = next(getattr(transformers, f"{name}Config") for name, _ in MODELS.values() if _type(name) == model_type)
    options = next(options for name, options in MODELS.values() if _type(name) == model_type)
    written = {**json.loads(kind(**options).to_json_string(use_diff=False)), **keys}
    return read_model(family, {key: value for key, value in written.items() if value != "absent"})


def _type(name: str) -> str:
    result: str = getattr(transformers, f"{name}Config").model_type
    return result


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("own", [{"rope_type": "default", "rope_theta": 5e3}, {"rope_type": "linear", "factor": 2.0}])
def test_rope_scaling_wins_over_rope_parameters_as_in_transformers(tmp_path: Path, own: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.save_pretrained(tmp_path / "external")
    file = tmp_path / "external" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rope_parameters": own, "rope_scaling": LINEAR}))
    external = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "external").eval()
    run = gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    ids_BT = torch.randint(3, 200, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected_BTV = external(ids_BT).logits
        found_BTV = run.model(ids_BT).logits
    assert (found_BTV - expected_BTV).abs().max() < 1e-4 * expected_BTV.abs().max()


@pytest.mark.parametrize(
    ("model_type", "keys", "named"),
    [
        ("bloom", {"hidden_size": 48, "n_embed": 64}, "n_embed"),
        ("bloom", {"n_layer": 3, "num_hidden_layers": 2}, "num_hidden_layers"),
        ("bloom", {"n_head": 6, "num_attention_heads": 3}, "num_attention_heads"),
        ("falcon", {"n_embed": 64}, "n_embed"),
        ("gpt_neox", {"rotary_emb_base": 1e4, "rope_theta": 5e3}, "rope_theta"),
        ("gpt_neox", {"rotary_pct": 0.5, "partial_rotary_factor": 0.25}, "partial_rotary_factor"),
        ("cohere2", {"sliding_window_pattern": 3, "layer_switch": 4}, "layer_switch"),
        ("gemma3_text", {"rope_scaling": {"rope_type": "linear", "factor": 3.0}}, "rope_scaling"),
        ("qwen3_moe", {"num_experts": 8, "num_local_experts": 4}, "num_local_experts"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("gemma3_text", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("mixtral", {"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("phimoe", {"num_experts_per_tok": 1}, "num_experts_per_tok"),
        ("opt", {"tie_word_embeddings": False, "word_embed_proj_dim": 20}, "word_embed_proj_dim"),
    ],
)
def test_synonymous_keys_must_agree(model_type: str, keys: dict[str, Any], named: str) -> None:
    with pytest.raises(ExternalModelError, match=named):
        read(model_type, **keys)


def test_synonymous_keys_that_agree_are_read() -> None:
    assert read("bloom", hidden_size=48, n_embed=48).d_model == 48
