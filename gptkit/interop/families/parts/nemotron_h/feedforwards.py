"""Feed-forwards of Nemotron-H, dense and of experts."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.interop.families.parts.experts import first_of, read_groups, sparse
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["FEED", "read_dense", "read_experts", "write_feedforwards"]

FEED = {
    "up": "up_proj",
    "down": "down_proj",
    "router.scores": "gate",
    "router.selection_bias": "gate.e_score_correction_bias",
    "latent_down": "fc1_latent_proj",
    "latent_up": "fc2_latent_proj",
    "experts.up": "experts.#.up_proj",
    "experts.down": "experts.#.down_proj",
    "shared.up": "shared_experts.up_proj",
    "shared.down": "shared_experts.down_proj",
}
"""External names of their tensors, by the native ones."""
ACTIVATION, BIAS = ("mlp_hidden_act", "relu2"), "mlp_bias"
SPARSE = {
    "n_routed_experts": "n_experts",
    "num_experts_per_tok": "router.k",
    "n_group": "router.n_groups",
    "topk_group": "router.top_groups",
    "norm_topk_prob": "router.renormalize",
    "routed_scaling_factor": "router.scale",
    "moe_latent_size": "latent",
    "moe_intermediate_size": "expert.d_hidden",
    "moe_shared_expert_intermediate_size": "shared.d_hidden",
}
"""Fields by the keys of experts."""


def read_dense(config: ExternalConfig) -> dict[str, Any]:
    """Return the feed-forward of layers of type mlp."""
    width, activation = config.integer("intermediate_size", 21504), read_activation(config, *ACTIVATION)
    return {"name": "mlp", "d_hidden": width, "activation": activation, "bias": config.flag(BIAS, False)}


def read_experts(config: ExternalConfig, dense: dict[str, Any], used: bool) -> dict[str, Any]:
    """Return the feed-forward of layers of type moe, whose experts have the activation of `dense`; it if there are none."""
    if not used:
        for key in (*SPARSE, "n_shared_experts"):
            config.value(key)
        return dense
    config.only("n_shared_experts", 1, why="transformers has one shared expert in this family")
    config.only(BIAS, False, why="experts have no biases, and the key is that of other parts too")
    k, n_experts = config.integer("num_experts_per_tok", 2), config.integer("n_routed_experts", 8)
    router = {"name": "sigmoid", "selection_bias": True, "k": k, **read_groups(config)}
    expert = {**dense, "d_hidden": config.integer("moe_intermediate_size", 7688)}
    shared = {**dense, "d_hidden": config.integer("moe_shared_expert_intermediate_size", 7688)}
    return sparse(n_experts, router, expert, shared=shared, latent=config.nullable("moe_latent_size"))


def write_feedforwards(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of both types of feed-forwards; `layers` are the specs of all layers."""
    result: dict[str, Any] = {}
    if dense := first_of(layers, "mlp"):
        result |= {"intermediate_size": dense.d_hidden, BIAS: dense.bias, ACTIVATION[0]: write_activation(dense.activation)}
    if experts := first_of(layers, "experts"):
        result |= {key: attrgetter(path)(experts) for key, path in SPARSE.items()} | {"n_shared_experts": 1, BIAS: False}
        result |= {ACTIVATION[0]: write_activation(experts.expert.activation)}
    return result
