"""Keys of Zamba: which layers have the branch, and what it is."""

from __future__ import annotations

from typing import Any

from gptkit.interop.families.parts.activations import read_activation
from gptkit.interop.families.parts.layers import pattern
from gptkit.interop.families.parts.periods import read_period
from gptkit.interop.families.parts.zamba.branch import read_attention
from gptkit.interop.families.parts.zamba.layers import HYBRID, LINEAR, read_hybrid
from gptkit.interop.families.parts.zamba.recurrence import D_MODEL
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["TINY", "read_layers"]

TINY = {"layers_block_type": [HYBRID, LINEAR, HYBRID], "num_hidden_layers": 3}
TINY |= {"n_mamba_heads": 2, "mamba_d_state": 6, "mamba_dt_rank": 5, "pad_token_id": None}


def read_layers(config: ExternalConfig, n_layers: int) -> list[dict[str, Any]] | None:
    """Return what the layers override: some have the branch."""
    usual: list[str] = []
    if "layers_block_type" not in config and "layer_types" not in config:
        later = read_period(config, "attn", 6, 4, max(0, n_layers - 3))
        usual = [LINEAR, LINEAR, HYBRID, *(HYBRID if each else LINEAR for each in later)]
    block = _branch(config)
    return pattern([{"block": block} if each else {} for each in read_hybrid(config, n_layers, usual)])


def _branch(config: ExternalConfig) -> dict[str, Any]:
    d_model, n_heads = config.integer("hidden_size", D_MODEL), config.integer("num_attention_heads", 16)
    config.only("attention_hidden_size", 2 * d_model, 0, why="the branch reads 2 · hidden_size features in transformers")
    return {
        "name": "shared-branch",
        "attention": read_attention(config, d_model, n_heads, config.integer("num_key_value_heads", 16)),
        "position": "none",
        "feedforward": {
            "name": "gated",
            "activation": read_activation(config, "hidden_act", "gelu"),
            "d_hidden": config.integer("intermediate_size", 4 * D_MODEL),
            "bias": False,
        },
    }
