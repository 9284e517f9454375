"""Feed-forwards of Llama 4: experts with a shared one, plain ones between them, or plain ones alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.activations import write_activation
from gptkit.interop.families.parts.experts import dense, first_of, sparse, write_experts
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_experts", "read_plain", "write_feedforwards"]


def read_plain(config: ExternalConfig, expert: dict[str, Any]) -> dict[str, Any]:
    """Return the feed-forward of layers without experts."""
    return dense(expert, config.integer("intermediate_size_mlp", 16384))


def read_experts(config: ExternalConfig, expert: dict[str, Any]) -> dict[str, Any]:
    """Return the feed-forward of layers with experts; the plain one in a model without (MobileLLM-R1)."""
    n_experts, k = config.integer("num_local_experts", 16), config.integer("num_experts_per_tok", 1)
    if not n_experts:
        return read_plain(config, expert)
    return sparse(n_experts, {"name": "sigmoid", "k": k, "renormalize": False}, expert, shared=expert, weights_on="input")


def write_feedforwards(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of all feed-forwards; `layers` are the specs of all layers."""
    plain = first_of(layers, "gated")
    result: dict[str, Any] = {"moe_layers": [i for i, layer in enumerate(layers) if layer.feedforward.name == "experts"]}
    result |= {} if plain is None else {"intermediate_size_mlp": plain.d_hidden}
    if result["moe_layers"]:
        return {**write_experts(layers, "num_local_experts", "intermediate_size"), **result}
    sizes = {"num_local_experts": 0, "num_experts_per_tok": 0, "intermediate_size": plain.d_hidden}
    return {**sizes, "hidden_act": write_activation(plain.activation), **result}
