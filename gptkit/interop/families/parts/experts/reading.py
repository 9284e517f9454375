"""Experts of a configuration, as feed-forwards of a spec file."""

from __future__ import annotations

from typing import Any

from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.layers import read_types
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["INERT", "dense", "first_dense", "read_groups", "read_sparse", "sparse"]

INERT = keys(
    "aux_loss_alpha ep_size input_jitter_noise output_router_logits pretraining_tp router_aux_loss_coef "
    "router_jitter_noise seq_aux router_z_loss_coef"
)
"""Keys that matter in training only, or for how many machines share the experts."""


def dense(expert: dict[str, Any], d_hidden: int) -> dict[str, Any]:
    """Return a feed-forward like an expert, of another width."""
    return {**expert, "d_hidden": d_hidden}


def sparse(n_experts: int, router: dict[str, Any], expert: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a feed-forward of experts."""
    return {"name": "experts", "n_experts": n_experts, "router": router, "expert": expert, **more}


def read_groups(
    config: ExternalConfig, groups: tuple[int, int] = (1, 1), scale: float = 1.0, *, renormalizes: bool = True
) -> dict[str, Any]:
    """Return the fields of a router of which DeepSeek's families and others name the keys alike.

    Args:
        config: `n_group`, `topk_group`, `norm_topk_prob` and `routed_scaling_factor` are read.
        groups: the defaults of the first two.
        scale: the default of the last one.
        renormalizes: the default of `norm_topk_prob`.
    """
    return {
        "n_groups": config.integer("n_group", groups[0]),
        "top_groups": config.integer("topk_group", groups[1]),
        "renormalize": config.flag("norm_topk_prob", renormalizes),
        "scale": config.number("routed_scaling_factor", scale),
    }


def first_dense(n_dense: int, n_layers: int, feedforward: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the overrides of layers of which the first `n_dense` have a dense feed-forward."""
    return [{"feedforward": feedforward} if index < n_dense else {} for index in range(n_layers)]


def read_sparse(config: ExternalConfig, n_layers: int, n_dense: int = 0) -> list[bool]:
    """Return whether each layer has experts: `mlp_layer_types`, or all but the first `n_dense`."""
    usual = ["dense" if index < n_dense else "sparse" for index in range(n_layers)]
    return [each == "sparse" for each in read_types(config, n_layers, usual, ("dense", "sparse"), "mlp_layer_types")]
