"""Feed-forwards of Inkling: experts, of which every token has the last ones, and a learned factor of the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts import experts as moe
from gptkit.interop.families.parts.activations import read_activation, write_activation
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_dense", "read_experts", "read_sparse", "write_feedforwards"]

FACTOR = {"name": "affine", "bias": "none", "shared": True}
"""A learned factor, of a mixture's output or, before a projection without biases, of hidden features."""


def _widths(config: ExternalConfig) -> tuple[int, int]:
    """Return the width of dense feed-forwards and that of experts."""
    wide = config.integer("intermediate_size", 24576)
    narrow = config.integer("moe_intermediate_size", 3072)
    dense = config.nullable("dense_intermediate_size")
    # transformers reads files with this key so.
    return (wide, narrow) if dense is None else (dense, wide)


def read_dense(config: ExternalConfig) -> dict[str, Any]:
    """Return the feed-forward of layers without experts."""
    activation = read_activation(config, "hidden_act", "silu")
    return {"name": "gated", "d_hidden": _widths(config)[0], "activation": activation, "hidden_norm": FACTOR}


def read_experts(config: ExternalConfig) -> dict[str, Any]:
    """Return the feed-forward of layers with experts; shared ones are the last, which every token has."""
    why = "transformers normalizes the weights of shared experts with those of the chosen ones"
    config.only("shared_expert_sink", True, why=why)
    n_experts = config.integer(config.alias("n_routed_experts", "num_local_experts"), 256)
    n_shared = config.integer("n_shared_experts", 2)
    if n_shared < 1:
        config.refuse("n_shared_experts", "transformers requires one shared expert at least")
    router = {"name": "sigmoid", "k": config.integer("num_experts_per_tok", 6), "always": n_shared}
    router |= {"selection_bias": True, "scale": config.number("route_scale", 8.0)}
    expert = {"name": "gated", "d_hidden": _widths(config)[1], "activation": read_activation(config, "hidden_act", "silu")}
    return moe.sparse(n_experts + n_shared, router, expert, output_norm=FACTOR)


def read_sparse(config: ExternalConfig, n_layers: int) -> list[bool]:
    """Return whether each layer has experts: `mlp_layer_types`, else all but the first `dense_mlp_idx`."""
    return moe.read_sparse(config, n_layers, config.integer("dense_mlp_idx", 0))


def write_feedforwards(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the feed-forwards."""
    result, plain = moe.first_of(layers, "experts"), moe.first_of(layers, "gated")
    written = moe.write_sparse(layers)
    if plain is not None:
        written |= {"intermediate_size": plain.d_hidden, "hidden_act": write_activation(plain.activation)}
    if result is not None:
        router = result.router
        written |= moe.write_experts(layers, "n_routed_experts", "moe_intermediate_size")
        written |= {"n_routed_experts": result.n_experts - router.always, "n_shared_experts": router.always}
        written |= {"route_scale": router.scale}
    return written
