"""Routers, of which those of the first layers hash token ids, and what layers override."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.deepseek_v4.attention import read_types_of
from gptkit.interop.families.parts.deepseek_v4.positions import read_position
from gptkit.interop.families.parts.experts import write_experts
from gptkit.interop.families.parts.layers import read_types
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_layers", "read_router", "write_feedforward"]

_SCORES = {"sqrtsoftplus": "sqrt-softplus", "sigmoid": "sigmoid"}


def _fields(config: ExternalConfig) -> tuple[str, dict[str, Any]]:
    """Return the function of the scores, and the fields of all routers."""
    score = config.text("scoring_func", "sqrtsoftplus")
    if score not in _SCORES:
        config.refuse("scoring_func", f"transformers has no such function, only {' and '.join(_SCORES)}")
    config.only("norm_topk_prob", True, why="transformers divides the weights by their sum in this family")
    scale, k = config.number("routed_scaling_factor", 1.5), config.integer("num_experts_per_tok", 6)
    return _SCORES[score], {"k": k, "renormalize": True, "scale": scale}


def read_router(config: ExternalConfig) -> dict[str, Any]:
    """Return the router of the layers that choose by scores."""
    score, fields = _fields(config)
    return {"name": score, **fields, "selection_bias": True}


def read_layers(config: ExternalConfig, n_layers: int) -> Sequence[dict[str, Any]]:
    """Return what each layer overrides: its attention, the rotation of a window alone, and a router that hashes."""
    score, fields = _fields(config)
    n_hash = config.integer("num_hash_layers") if "num_hash_layers" in config else 3
    usual = ["hash_moe" if index < n_hash else "moe" for index in range(n_layers)]
    hashes = read_types(config, n_layers, usual, ("hash_moe", "moe"), "mlp_layer_types")
    layers: list[dict[str, Any]] = []
    for attention, kind in zip(read_types_of(config, n_layers), hashes, strict=True):
        layer: dict[str, Any] = {"attention": attention} if attention else {}
        if "block_size" in attention and attention["block_size"] is None:
            layer["position"] = {"scaling": None, **read_position(config, "main")}
        if kind == "hash_moe":
            layer["feedforward"] = {"router": {"name": "hash", **fields, "score": score, "table": True}}
        layers.append(layer)
    return layers


def write_feedforward(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the experts and routers."""
    first = layers[0].feedforward
    router = first.router
    score = router.score if router.name == "hash" else router.name
    return {
        **write_experts(layers, "n_routed_experts", "moe_intermediate_size"),
        "n_shared_experts": 1,
        "swiglu_limit": first.expert.clamp,
        "scoring_func": score.replace("-", ""),
        "norm_topk_prob": router.renormalize,
        "routed_scaling_factor": router.scale,
        "mlp_layer_types": ["hash_moe" if layer.feedforward.router.name == "hash" else "moe" for layer in layers],
    }
