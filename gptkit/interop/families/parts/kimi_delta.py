"""Layers of Kimi Delta Attention: what hybrid families have in common in how they name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.hybrids import layers_with, numbered_rules, read_linear
from gptkit.interop.layouts import SAME, THIRDS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Layout, Rule

__all__ = ["NAMES", "TINY", "kda_of", "kda_rules", "read_hybrid"]

NAMES = {
    "max_position_embeddings": "model_max_length",
    "n_group": "num_expert_group",
    "n_routed_experts": "num_experts",
    "n_shared_experts": "num_shared_experts",
    "norm_topk_prob": "moe_renormalize",
    "num_experts_per_tok": "num_experts_per_token",
}
"""Names of settings in these families, by those of DeepSeek V3."""
TINY: dict[str, Any] = {"layer_types": ["linear_attention", "full_attention"] * 2, "num_key_value_heads": 4}
TINY |= {"kv_lora_rank": 12, "qk_rope_head_dim": 8, "qk_nope_head_dim": 10, "v_head_dim": 6, "moe_intermediate_size": 24}
TINY |= {"num_experts": 8, "num_experts_per_token": 3, "num_expert_group": 4, "topk_group": 2}
"""Keys of a tiny configuration."""
TENSORS = {"qkv": "{q,k,v}_proj", "conv": "{q,k,v}_conv1d", "decay_log": "A_log"}
TENSORS |= {"strength": "b_proj", "decay_bias": "dt_bias", "norm": "o_norm"}


def kda_of(layers: Sequence[Any]) -> Any:
    """Return the attention of the first layer with Kimi Delta Attention."""
    return layers_with(layers, "kimi-delta")[0].attention  # an IndexError means that the family cannot express the model


def read_hybrid(
    config: ExternalConfig, sparse: Sequence[bool], full: Sequence[bool], linear: dict[str, Any], plain: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return what each layer overrides.

    Args:
        config: `layer_types` is read.
        sparse: whether each layer has experts.
        full: whether each layer has full attention, where the configuration does not list the types.
        linear: the attention of the other layers.
        plain: the feed-forward of layers without experts.
    """
    config.only("hidden_act", "silu", why="it is also the activation of convolutions, which gptkit has fixed")
    types = read_linear(config, [not each for each in full])
    mixers = [{"attention": linear, "position": "none"} if each else {} for each in types]
    feeders = [{} if each else {"feedforward": plain} for each in sparse]
    return [{**mixer, **feeder} for mixer, feeder in zip(mixers, feeders, strict=True)]


def kda_rules(model: Any, external: str, names: dict[str, str], decay_log: Layout = SAME) -> list[Rule]:
    """Return the rules of Kimi Delta Attention; they come before those of full attention.

    Args:
        model: the model's spec.
        external: the name of the attention, with ``{}`` for the index of the layer.
        names: names of tensors that differ among families, by the native ones.
        decay_log: how `A_log` is stored.
    """
    layouts: dict[str, Layout] = {"qkv": THIRDS, "conv": THIRDS, "decay_log": decay_log}
    return numbered_rules(model, "kimi-delta", external, {**TENSORS, **names}, layouts)
