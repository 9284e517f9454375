"""Layers of Kimi Delta Attention: what hybrid families have in common in how they name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families._common import every
from gptkit.interop.layouts import SAME, THIRDS
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Layout, Rule

__all__ = ["NAMES", "TINY", "every_nth", "kda_of", "kda_rules", "read_hybrid", "write_types"]

NAMES = {
    "max_position_embeddings": "model_max_length",
    "n_group": "num_expert_group",
    "n_routed_experts": "num_experts",
    "n_shared_experts": "num_shared_experts",
    "norm_topk_prob": "moe_renormalize",
    "num_experts_per_tok": "num_experts_per_token",
}
"""Names of settings in these families, by those of DeepSeek V3."""

TINY = {
    "num_key_value_heads": 4,
    "moe_intermediate_size": 24,
    "num_experts": 8,
    "num_experts_per_token": 3,
    "num_expert_group": 4,
    "topk_group": 2,
    "kv_lora_rank": 12,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 10,
    "v_head_dim": 6,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}

_JOINED = {"qkv": "proj", "conv": "conv1d"}


def kda_of(layers: Sequence[Any]) -> Any:
    """The attention of the first layer with Kimi Delta Attention."""
    matching = [layer.attention for layer in layers if layer.attention.name == "kimi-delta"]
    return matching[0]  # an IndexError means that the family cannot express the model


def read_hybrid(
    config: ExternalConfig, sparse: Sequence[bool], full: Sequence[int], linear: dict[str, Any], plain: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return what each layer overrides.

    Args:
        config: `layer_types` is read.
        sparse: whether each layer has experts.
        full: the layers with full attention, where the configuration does not list the types.
        linear: the attention of the other layers.
        plain: the feed-forward of layers without experts.
    """
    config.only("hidden_act", "silu", why="it is also the activation of convolutions, which gptkit has fixed")
    usual = ["full_attention" if index in full else "linear_attention" for index in range(len(sparse))]
    types = config.items("layer_types", usual)
    if len(types) != len(sparse) or not set(types) <= {"linear_attention", "full_attention"}:
        config.refuse("layer_types", f"it should name linear_attention or full_attention for each of {len(sparse)} layers")
    mixers = [{"attention": linear, "position": "none"} if each == "linear_attention" else {} for each in types]
    feeders = [{} if each else {"feedforward": plain} for each in sparse]
    return [{**mixer, **feeder} for mixer, feeder in zip(mixers, feeders, strict=True)]


def write_types(layers: Sequence[Any]) -> dict[str, Any]:
    """`layer_types` of a hybrid."""
    linear = [layer.attention.name == "kimi-delta" for layer in layers]
    return {"layer_types": ["linear_attention" if each else "full_attention" for each in linear]}


def every_nth(config: ExternalConfig, key: str, n: int, n_layers: int) -> list[int]:
    """Return the layers n − 1, 2n − 1, …, where the configuration may have another n."""
    return [index for index, each in enumerate(every(config.integer(key, n), n_layers)) if each]


def kda_rules(model: Any, external: str, names: dict[str, str], decay_log: Layout = SAME) -> list[Rule]:
    """Return the rules of Kimi Delta Attention; they come before those of full attention.

    Args:
        model: the model's spec.
        external: the name of the attention, with ``{}`` for the index of the layer.
        names: names of tensors that differ among families, by the native ones.
        decay_log: how `A_log` is stored.
    """
    common = {"strength": "b_proj", "decay_bias": "dt_bias", "norm": "o_norm", **names}
    rules: list[Rule] = []
    for index, layer in enumerate(model.layer_specs()):
        if layer.attention.name != "kimi-delta":
            continue
        native, owner = f"blocks.{index}.attention", external.format(index)
        rules += [Rule(f"{native}.{own}", f"{owner}.{name}") for own, name in common.items()]
        rules += [Rule(f"{native}.{own}", f"{owner}.{{q,k,v}}_{name}", THIRDS) for own, name in _JOINED.items()]
        rules.append(Rule(f"{native}.decay_log", f"{owner}.A_log", decay_log))
    return rules
