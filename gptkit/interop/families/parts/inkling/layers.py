"""Types of Inkling's layers: all tokens or a window, each with heads of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.inkling.attention import FULL, HEADS, SLIDING
from gptkit.interop.families.parts.layers import read_types
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["read_kinds", "write_layers"]


def read_kinds(config: ExternalConfig, n_layers: int) -> list[str]:
    """Return the type of each layer: `layer_types`, else that of `local_layer_ids`, else each sixth without a window."""
    local = [index for index in range(n_layers) if (index + 1) % 6]
    local = config.items("local_layer_ids", local)
    usual = [SLIDING if index in local else FULL for index in range(n_layers)]
    return read_types(config, n_layers, usual, (FULL, SLIDING))


def write_layers(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the types of layers and of their attentions; a type that no layer has is written as the other."""
    kinds = [FULL if layer.attention.window is None else SLIDING for layer in layers]
    result: dict[str, Any] = {"layer_types": kinds}
    for kind, sizes in HEADS.items():
        attention = next((layer.attention for layer, own in zip(layers, kinds, strict=True) if own == kind), None)
        own = attention or layers[0].attention
        for field, (key, usual) in sizes.items():
            if attention is None and field in ("window", "relative_extent"):
                result[key] = usual
            else:
                result[key] = own.kv_heads if field == "n_kv_heads" else getattr(own, field)
    tuned = next((layer.position for layer in layers if layer.position.name == "query-temperature"), None)
    first = layers[0].attention
    return {
        **result,
        "log_scaling_n_floor": None if tuned is None else tuned.interval,
        **({} if tuned is None else {"log_scaling_alpha": tuned.strength}),
        "d_rel": first.relative_width,
        "conv_kernel_size": first.kv_conv,
    }
