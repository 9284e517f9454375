"""Hybrids: models without layers of one kind, and combinations of keys that gptkit does not have."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import families, pair, read_model, write_config
from gptkit.interop.differences import differences
from gptkit.interop.selection import choose_family
from gptkit.model.gpt import GPT
from gptkit.testing.configurations import SMALL, base_config
from tests.support.tiny_models import MODELS

transformers = pytest.importorskip("transformers")


def read(name: str, **changes: Any) -> Any:
    """Read a tiny model with changed keys, all others explicit, and pair its tensors."""
    kind, options = MODELS[name]
    family = next(each for each in families().values() if each.model_type == name)
    model = read_model(family, {**getattr(transformers, f"{kind}Config")(**options).to_dict(), **changes})
    assert pair(family, GPT(model, device="meta"))
    return model


@pytest.mark.parametrize("name", ["kimi_linear", "bailing_hybrid"])
@pytest.mark.parametrize("kind", ["linear_attention", "full_attention"])
def test_hybrids_with_layers_of_one_kind_are_read(name: str, kind: str) -> None:
    layers = read(name, layer_types=[kind] * 4).layer_specs()
    assert len({layer.attention.name for layer in layers}) == 1


def test_biases_of_one_projection_of_mamba_are_refused() -> None:
    options = MODELS["falcon_h1"][1]
    assert "projectors_bias" not in options
    with pytest.raises(ExternalModelError, match=r"gptkit has biases in both projections of Mamba-2 \(mamba_proj_bias\)"):
        read_model(families()["falcon-h1"], {**options, "model_type": "falcon_h1", "mamba_proj_bias": True})


ATTENDS, MIXES = "full_attention", "linear_attention"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bamba", {"attn_layer_indices": []}),
        ("bamba", {"attn_layer_indices": [0, 1, 2, 3]}),
        ("granitemoehybrid", {"layer_types": [ATTENDS] * 4}),
        ("granitemoehybrid", {"layer_types": [ATTENDS] * 4, "position_embedding_type": "rope", "num_local_experts": 0}),
        ("granitemoehybrid", {"layer_types": [MIXES] * 4}),
        ("jamba", {"attn_layer_period": 9, "attn_layer_offset": 8}),
        ("jamba", {"attn_layer_period": 1, "attn_layer_offset": 0}),
        ("lfm2", {"layer_types": ["conv"] * 4}),
        ("nemotron_h", {"layers_block_type": [ATTENDS] * 3}),
        ("nemotron_h", {"layers_block_type": [MIXES] * 3}),
        ("nemotron_h", {"layers_block_type": ["mlp", "moe"]}),
    ],
)
def test_hybrids_with_layers_of_one_kind_are_written(name: str, changes: dict[str, Any]) -> None:
    kind, _ = MODELS[name]
    family = next(each for each in families().values() if each.model_type == name)
    model = read(name, **changes)
    written = write_config(family, model)
    made = getattr(transformers, f"{kind}Config")(**written)  # which checks that sizes fit
    assert not differences(model, read_model(family, made.to_dict()))
    recurrent = {layer.attention.name for layer in model.layer_specs()} <= {"mamba1", "mamba2", "short-conv"}
    assert written.get("use_cache", True) is not recurrent


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bamba", {"attn_layer_indices": []}),
        ("jamba", {"attn_layer_period": 9, "attn_layer_offset": 8}),
        ("lfm2", {"layer_types": ["conv"] * 4}),
        ("granitemoehybrid", {"layer_types": [MIXES] * 4}),
        ("nemotron_h", {"layers_block_type": [MIXES] * 3}),
        ("mamba2", {}),
    ],
)
def test_hybrids_without_attention_generate_in_transformers(name: str, changes: dict[str, Any]) -> None:
    """The cache of transformers counts tokens in layers that attend, and ends with an error without one."""
    kind, _ = MODELS[name]
    family = next(each for each in families().values() if each.model_type == name)
    config = getattr(transformers, f"{kind}Config")(**write_config(family, read(name, **changes)))
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    ids = torch.tensor([[1, 2, 3, 4]])
    assert model.generate(ids, max_new_tokens=2, do_sample=False, pad_token_id=0).shape == (1, 6)
    assert config.use_cache is (name == "mamba2")


def test_plain_families_are_preferred_to_hybrids() -> None:
    hybrid = read("granitemoehybrid", layer_types=[ATTENDS] * 4, position_embedding_type="rope", num_local_experts=0)
    assert choose_family(hybrid)[0].name == "granite"
    assert choose_family(hybrid, "granitemoehybrid")[0].name == "granitemoehybrid"
    assert choose_family(read("mamba2"))[0].name == "mamba2"


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("qwen3", {"num_attention_heads": 4, "head_dim": 16}),
        ("qwen3-moe", {"num_attention_heads": 4, "head_dim": 16}),
        ("mistral", {"sliding_window": 6}),
        ("phi3", {"sliding_window": 6}),
        ("opt", {}),
    ],
)
def test_common_families_are_preferred_to_others_that_express_their_models(name: str, sizes: dict[str, Any]) -> None:
    family = families()[name]
    model = read_model(family, base_config(family, SMALL, {**family.tiny[0], **sizes}))
    chosen = choose_family(model)[0].component_name()
    # Phi 3 without a partial rotary position is Mistral with matrices of another layout.
    assert chosen == ("mistral" if name == "phi3" else name)
