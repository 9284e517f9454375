"""Keys of experts in configurations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.activations import write_activation

__all__ = ["first_of", "write_experts", "write_groups", "write_sparse"]


def first_of(layers: Sequence[Any], name: str) -> Any:
    """Return the first layer's feed-forward with such a name; None where there is none."""
    return next((layer.feedforward for layer in layers if layer.feedforward.name == name), None)


def write_experts(layers: Sequence[Any], n_experts: str, d_hidden: str, activation: str = "hidden_act") -> dict[str, Any]:
    """Return the keys of every family: how many experts, how many of them a token sees, and how wide they are."""
    result = first_of(layers, "experts")
    return {
        n_experts: result.n_experts,
        "num_experts_per_tok": result.router.k,
        d_hidden: result.expert.d_hidden,
        activation: write_activation(result.expert.activation),
    }


def write_groups(router: Any) -> dict[str, Any]:
    """Return the keys that `read_groups` reads."""
    return {
        "n_group": router.n_groups,
        "topk_group": router.top_groups,
        "norm_topk_prob": router.renormalize,
        "routed_scaling_factor": router.scale,
    }


def write_sparse(layers: Sequence[Any]) -> dict[str, Any]:
    """Return `mlp_layer_types` of a model."""
    return {"mlp_layer_types": ["sparse" if layer.feedforward.name == "experts" else "dense" for layer in layers]}
