"""Types of layers of dots3 Note, each with latent attention of its own sizes and a rotary base of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptkit.interop.families.parts.dots3_note_sizes import write_sizes
from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.layers import read_types as read_list
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["INDEXED", "SLIDING", "TINY", "layer_type", "read_rotary_of", "read_types", "write_types"]

INDEXED, SLIDING, FULL = "indexed_attention", "sliding_attention", "full_attention"

_SMALL = {"num_attention_heads": 2, "num_key_value_heads": 2, "q_lora_rank": 14, "kv_lora_rank": 10, "head_dim": 16}
_SMALL |= {"qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 8}
TINY = {"head_dim": 18, "sliding_window": 6, "pad_token_id": 0, "per_layer_config": {"2": _SMALL, "3": _SMALL}}
"""Keys of a tiny configuration."""


def read_types(config: ExternalConfig, n_layers: int) -> list[str]:
    """Return the type of each layer: `layer_types`, or the first two and every fourth one indexed, the others sliding."""
    usual = [SLIDING if index >= 2 and index % 4 != 1 else INDEXED for index in range(n_layers)]
    return read_list(config, n_layers, usual, (INDEXED, SLIDING, FULL))


def read_rotary_of(config: ExternalConfig, layer_type: str) -> dict[str, Any]:
    """Return the position of a type of layers: of its own mapping in `rope_parameters`, or of one mapping for all types."""
    # transformers computes the rotated part of the head from other keys.
    part = keys("partial_rotary_factor")
    base, local = config.number("rope_theta", 8e7), config.number("swa_rope_theta", 5e4)
    section = config.section("rope_parameters", part)
    if any(isinstance(each, Mapping) for each in section.data.values()):
        section = section.section(layer_type, part)
    elif "rope_parameters" not in config and layer_type == SLIDING:
        base = local
    for key in ("rope_type", "type"):
        section.only(key, "default", why="gptkit has no scaling of rotary positions in this family")
    return {"name": "rotary", "base": section.number("rope_theta", base), "layout": "interleaved"}


def layer_type(layer: Any) -> str:
    """Return the type of a layer of a model."""
    if layer.attention.name == "sparse-latent":
        return INDEXED
    return SLIDING if layer.attention.window else FULL


def write_types(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys that the functions above read, for the layers of a model."""
    types = [layer_type(layer) for layer in layers]
    sliding = {str(index): write_sizes(layers[index].attention) for index, each in enumerate(types) if each == SLIDING}
    window = next((layer.attention.window for layer in layers if layer.attention.window), None)
    bases = {each: layer.position.base for each, layer in zip(types, layers, strict=True)}
    rotary = {each: {"rope_type": "default", "rope_theta": base} for each, base in bases.items()}
    windows = {"sliding_window": window, "per_layer_config": sliding} if sliding else {}
    return {"layer_types": types, "rope_parameters": rotary, **windows}
