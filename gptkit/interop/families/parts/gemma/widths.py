"""Feed-forwards whose width or sparsity differs by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.kinds.external_config import ExternalConfig

__all__ = ["SPARSITY", "dense_layers", "read_feedforwards", "read_wide", "write_feedforwards"]

SPARSITY, _WIDTH = "activation_sparsity_pattern", "intermediate_size"


def read_feedforwards(config: ExternalConfig) -> list[dict[str, Any]]:
    """Return the width and the sparsity of the feed-forward in each layer (Gemma 3n)."""
    n_layers = config.layers("num_hidden_layers")
    listed = isinstance(config.value(_WIDTH), list)
    widths = config.items(_WIDTH) if listed else [config.integer(_WIDTH, 16384)] * n_layers
    n_sparse = 10 if n_layers > 10 else 0
    shares = config.items(SPARSITY, [0.95] * n_sparse + [0.0] * (n_layers - n_sparse))
    for key, values in ((_WIDTH, widths), (SPARSITY, shares)):
        if len(values) != n_layers:
            config.refuse(key, f"it should have a value for each of {n_layers} layers")
    return [{"d_hidden": width, "sparsity": share} for width, share in zip(widths, shares, strict=True)]


def write_feedforwards(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys that `read_feedforwards` reads."""
    names = {_WIDTH: "d_hidden", SPARSITY: "sparsity"}
    return {key: [getattr(layer.feedforward, name) for layer in layers] for key, name in names.items()}


def read_wide(config: ExternalConfig, width: int, beside: bool) -> dict[str, Any] | None:
    """Return what layers that share keys and values override of the feed-forward: twice the width of the dense one.

    Args:
        config: the configuration.
        width: the width of the others.
        beside: whether there are experts beside it.
    """
    if not config.flag("use_double_wide_mlp", False):
        return None
    wide = {"d_hidden": 2 * width}
    return {"shared": wide} if beside else wide


def dense_layers(layers: Sequence[Any]) -> list[Any]:
    """Return the specs of all layers with the dense feed-forward alone, without experts beside it."""
    dense = [getattr(layer.feedforward, "shared", None) or layer.feedforward for layer in layers]
    return [layer.model_copy(update={"feedforward": each}) for layer, each in zip(layers, dense, strict=True)]
