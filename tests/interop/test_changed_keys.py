"""Configurations in which some keys have unusual values: imported as transformers computes them, or refused."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import families, read_model
from tests.support.parity import distance, kernel, logits_of, make, model_class, random_ids
from tests.support.tiny_models import MODELS

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

ABSENT: Any = object()
FULL = "full_attention"
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 0.7, "mscale_all_dim": 1.2}
LINEAR = {"rope_type": "linear", "factor": 2.0}
HALF = {"rope_type": "default", "partial_rotary_factor": 0.5}
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.5, 2.0, 4.0, 9.0]}

EQUAL: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma-gelu": ("gemma", {"hidden_act": "gelu"}),
    "gemma2-gelu": ("gemma2", {"hidden_activation": "gelu"}),
    "gemma2-full": ("gemma2", {"layer_types": [FULL] * 3}),
    "gemma3-full": ("gemma3", {"layer_types": [FULL] * 7}),
    "cohere2-full": ("cohere2", {"layer_types": [FULL] * 5}),
    "gpt_oss-full": ("gpt_oss", {"layer_types": [FULL] * 3}),
    "olmo3-full": ("olmo3", {"layer_types": [FULL] * 5}),
    "cwm-full": ("cwm", {"layer_types": [FULL] * 5}),
    "ministral-full": ("ministral", {"layer_types": [FULL] * 3}),
    "granite_swa-full": ("granite_swa", {"layer_types": [FULL] * 4}),
    "granitemoe_swa-full": ("granitemoe_swa", {"layer_types": [FULL] * 3}),
    "llama4-full": ("llama4", {"layer_types": [FULL] * 5}),
    "cohere_compass-scaled": (
        "cohere_compass",
        {
            "rope_parameters": {
                FULL: {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            }
        },
    ),
    "dots3_note-one-mapping": ("dots3_note", {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}),
    "dots3_note-default-base": ("dots3_note", {"rope_parameters": {}}),
    "deepseek_v2-shared": ("deepseek_v2", {"n_shared_experts": ABSENT}),
    "deepseek_v3-shared": ("deepseek_v3", {"n_shared_experts": ABSENT}),
    "deepseek_v3-both": ("deepseek_v3", {"rope_scaling": YARN, "rope_parameters": {"rope_theta": 9.0}}),
    "deepseek_v4-default-base": ("deepseek_v4", {"rope_parameters": {"main": HALF, "compress": HALF}}),
    "olmo_hybrid-null": ("olmo_hybrid", {"rope_theta": None, "rope_parameters": None}),
    "lfm2-full": ("lfm2", {"layer_types": [FULL] * 4}),
    "lfm3-bases": ("lfm3", {"rope_parameters": {kind: {"rope_type": "default"} for kind in (FULL, "sliding_attention")}}),
    "mellum-full": ("mellum", {"layer_types": [FULL] * 3}),
    "gpt2-unscaled": ("gpt2", {"scale_attn_weights": False}),
    "gpt2-by-layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}),
    "gpt2-unscaled-by-layer": ("gpt2", {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True}),
    "gpt_bigcode-unscaled": ("gpt_bigcode", {"scale_attn_weights": False}),
    "cohere2-negative": ("cohere2", {"sliding_window_pattern": -2}),
    "opt-accurate": ("opt", {"activation_function": "gelu_accurate"}),
    "llama-python": ("llama", {"hidden_act": "gelu_python", "original_max_position_embeddings": 16}),
    "gpt_oss-empty": ("gpt_oss", {"rope_parameters": {}}),
    "apertus-empty": ("apertus", {"rope_parameters": {}, "rope_scaling": None}),
    "cwm-empty": ("cwm", {"rope_parameters": {}, "rope_scaling": None}),
    "glm4_moe-null": ("glm4_moe", {"partial_rotary_factor": None}),
    "llama-no-length": ("llama", {"max_position_embeddings": ABSENT, "rope_scaling": {**LINEAR, "rope_theta": 5e3}}),
    "inkling2_text-no-window": ("inkling2_text", {"layer_types": ["hybrid"] * 5}),
    "inkling2_text-windows": ("inkling2_text", {"layer_types": ["hybrid_sliding"] * 5}),
    "inkling2_text-groups": ("inkling2_text", {"n_layers_per_attn_res_block": 1}),
    "inkling2_text-one-group": ("inkling2_text", {"n_layers_per_attn_res_block": 9, "swa_head_dim": 10}),
    "inkling2_text-bounds": (
        "inkling2_text",
        {"qk_l2_clip_threshold": 0.5, "rel_l2_clip_threshold": 0.2, "mlp_gate_softcap": 0.3, "mlp_up_softcap": 0.1},
    ),
    "inkling2_text-narrow": ("inkling2_text", {"conv_kernel_size": 1, "d_rel": 1, "sliding_window_size": 1}),
    "phi3-trained": ("phi3", {"rope_scaling": LONG, "original_max_position_embeddings": 24}),
}
"""Models of `MODELS` and their changed keys."""

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gemma3", {"attn_logit_softcapping": 2.0}, "attn_logit_softcapping is .*: transformers ignores it"),
    ("gemma3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is .*: transformers ignores type"),
    ("gemma3n", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling is .*: transformers ignores type"),
    ("gpt_bigcode", {"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx is .*: transformers ignores"),
    ("gptj", {"scale_attn_weights": False}, "scale_attn_weights is .*: transformers always scales"),
    ("glm_moe_dsa", {"index_topk_pattern": 2}, "index_topk_pattern is .*: it should be a text with a letter"),
    (
        "deepseek_v4",
        {"rope_parameters": {"main": {**HALF, "rope_type": "proportional"}, "compress": HALF}},
        "rope_type is .*: the head's features that are not rotated",
    ),
    ("gemma3", {"original_max_position_embeddings": 16}, "unknown keys: 'original_max_position_embeddings'"),
    ("phi3-long", {"max_position_embeddings": ABSENT}, "has no 'max_position_embeddings'"),
    (
        "cohere",
        {"max_position_embeddings": ABSENT, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}},
        "has no 'max_pos",
    ),
    ("cohere", {"max_position_embeddings": ABSENT, "rope_scaling": {"type": "dynamic", "factor": 4.0}}, "has no 'max_pos"),
    ("mellum", {"rope_theta": 500.0}, "unknown keys: 'rope_theta'"),
    ("mellum", {"rope_local_base_freq": 500.0}, "unknown keys: 'rope_local_base_freq'"),
    ("granite_swa", {"layer_rope_theta": [100.0]}, "layer_rope_theta is .*: it should have a value for each of 4 layers"),
    ("llama4", {"no_rope_layers": [1]}, "no_rope_layers is .*: it should have a value for each of 5 layers"),
    ("llama4", {"layer_types": [FULL]}, "layer_types is .*: it should name .* for each of 5 layers"),
    ("granite", {"logits_scaling": 0.0}, "logits_scaling is .*: logits are divided by it"),
    ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is .*: scores are divided by its square root"),
    (
        "dots3_note",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
        "rope_type is .*: gptkit has no scaling of rotary positions",
    ),
    ("dots3_note", {"swa_qk_rope_head_dim": 4}, "swa_head_dim is .*: it should be swa_qk_nope_head_dim"),
    ("olmo3", {"rope_theta": 500.0}, "rope_theta is .*: transformers applies it to full layers alone"),
    ("olmo3", {"rope_local_base_freq": 500.0}, "unknown keys: 'rope_local_base_freq'"),
    ("exaone4", {"sliding_window": 0}, "sliding_window is .*: a window has at least one token"),
    ("ernie4_5_moe", {"moe_norm_min": 0.5}, "moe_norm_min is .*: gptkit has no lower bound"),
    (
        "phi3",
        {"rope_scaling": {**LONG, "original_max_position_embeddings": 16}},
        "original_max_position_embeddings is .*: transformers reads .* which is 4096",
    ),
    ("gpt_neox", {"rope_theta": 500.0}, "rope_theta is .*: transformers reads rotary_emb_base"),
    ("gpt_neox", {"partial_rotary_factor": 0.75}, "partial_rotary_factor is .*: transformers reads rotary_pct"),
    ("gpt_neox_japanese", {"rope_theta": 500.0}, "rope_theta is .*: transformers reads rotary_emb_base"),
]
"""Models of `MODELS`, their changed keys, and the error."""


@pytest.mark.parametrize("case", EQUAL)
def test_changed_keys_are_read_and_written_as_in_transformers(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, changes = EQUAL[case]
    family, options = MODELS[name]
    monkeypatch.setitem(MODELS, case, (family, deepcopy(_present({**options, **changes}))))
    model, ids = make(case, tmp_path / "external"), random_ids()
    # The keys as they are in the changed file, not as the class saves them.
    file = tmp_path / "external" / "config.json"
    file.write_text(json.dumps(_present({**json.loads(file.read_text()), **changes})))
    expected = logits_of(model, ids)
    run = gptkit.import_model(tmp_path / "external", tmp_path / "run", tokenizer="byte")
    with torch.no_grad():
        assert distance(run.model(ids).logits, expected) < 5e-5
    gptkit.export_model(tmp_path / "run", tmp_path / "exported")
    load = model_class(model.config).from_pretrained
    again, report = load(tmp_path / "exported", attn_implementation=kernel(case), output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert distance(logits_of(again.eval(), ids), expected) < 1e-6


def _present(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if value is not ABSENT}


@pytest.mark.parametrize(("name", "changes", "error"), REFUSED)
def test_changed_keys_are_refused(name: str, changes: dict[str, Any], error: str) -> None:
    kind, options = MODELS[name]
    model_type = getattr(transformers, f"{kind}Config").model_type
    family = next(each for each in families().values() if each.model_type == model_type)
    read_model(family, {**options, "model_type": model_type})
    with pytest.raises(ExternalModelError, match=error):
        read_model(family, _present({**options, **changes, "model_type": model_type}))
