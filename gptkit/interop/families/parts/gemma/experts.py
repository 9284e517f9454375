"""Experts of Gemma 4: beside the dense feed-forward of a layer, each between two norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.layouts import HALVES
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["EXPERTS", "expert_rules", "read_experts", "write_experts"]

EXPERTS = ("num_experts", "top_k_experts", "moe_intermediate_size")
"""Keys of the number of experts, how many of them a token uses, and their width."""


def read_experts(config: ExternalConfig, dense: dict[str, Any], norm: dict[str, Any]) -> dict[str, Any]:
    """Return the feed-forward: the dense one, or with `enable_moe_block` experts beside it.

    Args:
        config: the configuration.
        dense: the dense feed-forward.
        norm: the norm of a layer.
    """
    if not config.flag("enable_moe_block", False):
        for key in EXPERTS:
            config.value(key)
        return dense
    n_experts, n_chosen, d_hidden = (config.integer(key) for key in EXPERTS)
    router = {
        "name": "softmax-top-k",
        "k": n_chosen,
        "norm": norm,
        "score_scale": config.integer("hidden_size") ** -0.5,
        "expert_scale": True,
    }
    expert = {**dense, "d_hidden": d_hidden}
    fields = {"router": router, "expert": expert, "shared": dense, "branch_norm": norm}
    return {"name": "experts", "n_experts": n_experts, **fields}


def write_experts(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the experts; `layers` are the specs of all layers."""
    first = layers[0].feedforward
    if first.name != "experts":
        return {"enable_moe_block": False}
    sizes = (first.n_experts, first.router.k, first.expert.d_hidden)
    return {"enable_moe_block": True, **dict(zip(EXPERTS, sizes, strict=True))}


def expert_rules() -> list[Rule]:
    """Return the rules of the experts, their router and the norms of both branches."""
    native, layer = "blocks.*.feedforward", "model.layers.*"
    return [
        Rule(f"{native}.router.norm.weight", f"{layer}.router.scale"),
        Rule(f"{native}.router.scores", f"{layer}.router.proj"),
        Rule(f"{native}.router.expert_scale", f"{layer}.router.per_expert_scale"),
        Rule(f"{native}.experts.gate_up.weight", f"{layer}.experts.gate_up_proj"),
        Rule(f"{native}.experts.down.weight", f"{layer}.experts.down_proj"),
        Rule(f"{native}.routed_norm", f"{layer}.pre_feedforward_layernorm_2"),
        Rule(f"{native}.routed_output_norm", f"{layer}.post_feedforward_layernorm_2"),
        Rule(f"{native}.shared_norm", f"{layer}.pre_feedforward_layernorm"),
        Rule(f"{native}.shared_output_norm", f"{layer}.post_feedforward_layernorm_1"),
        Rule(f"{native}.shared.gate_up", f"{layer}.mlp.{{gate,up}}_proj", HALVES),
        Rule(f"{native}.shared.down", f"{layer}.mlp.down_proj"),
    ]
