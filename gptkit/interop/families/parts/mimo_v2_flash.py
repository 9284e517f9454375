"""Keys of the released MiMo-V2-Flash, in whose place transformers reads others or computes one value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.core.spec import describe
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["check_released"]

FIXED = {
    "add_full_attention_sink_bias": False,
    "add_swa_attention_sink_bias": True,
    "n_shared_experts": None,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
}
"""Keys that transformers does not read, and what it computes."""


def check_released(
    config: ExternalConfig, attention: dict[str, Any], full: dict[str, Any], layers: Sequence[dict[str, Any]]
) -> None:
    """Refuse keys of released files that have another value than what transformers computes from the keys it reads.

    Args:
        config: the configuration.
        attention: the attention of layers without a window.
        full: their position.
        layers: what each layer overrides.
    """
    local = next((layer["position"] for layer in layers if "position" in layer), full)
    fractions = [each.get("fraction", 1.0) for each in (full, local)]
    computed = {
        "hybrid_layer_pattern": ("layer_types", [int("position" in layer) for layer in layers]),
        "moe_layer_freq": ("mlp_layer_types", [int("feedforward" not in layer) for layer in layers]),
        "layernorm_epsilon": ("rms_norm_eps", config.number("rms_norm_eps", 1e-5)),
        "rope_theta": ("rope_parameters", full["base"]),
        "swa_rope_theta": ("rope_parameters", local["base"]),
        "partial_rotary_factor": ("rope_parameters", fractions[0] if fractions[0] == fractions[1] else None),
        "swa_num_attention_heads": ("num_attention_heads", attention["n_heads"]),
        "swa_num_key_value_heads": ("num_key_value_heads", 2 * attention["n_kv_heads"]),
        "swa_head_dim": ("head_dim", attention["d_head"]),
        "swa_v_head_dim": ("v_head_dim", attention["d_value"]),
    }
    for key, (read, value) in computed.items():
        if config.value(key) not in (None, value):
            config.refuse(key, f"transformers reads {read} instead, whose value or default differs; correct one of them")
    for key, fixed in FIXED.items():
        if config.value(key) not in (None, fixed):
            config.refuse(key, f"transformers does not read it, and computes {describe(fixed)}")
