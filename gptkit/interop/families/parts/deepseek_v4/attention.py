"""Attention to a window of tokens and to compressed blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.deepseek_v4.positions import read_rotated
from gptkit.interop.families.parts.layers import read_types
from gptkit.kinds.external_config import ExternalConfig

__all__ = ["SLIDING", "SPARSE", "read_attention", "read_types_of", "type_of", "write_attention"]

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
_BY_RATIO = {0: SLIDING, 4: SPARSE, 128: HEAVY}
_RATES = {SPARSE: ("compress_rate_csa", 4), HEAVY: ("compress_rate_hca", 128)}
_SIZES = {"n_heads": ("num_attention_heads", None), "d_head": ("head_dim", 512), "q_rank": ("q_lora_rank", 1024)}
_SIZES |= {"sliding_window": ("sliding_window", 128), "output_groups": ("o_groups", 8)}
_SIZES |= {"output_rank": ("o_lora_rank", 1024), "index_heads": ("index_n_heads", 64), "d_index": ("index_head_dim", 128)}


def read_attention(config: ExternalConfig, eps: float) -> dict[str, Any]:
    """Return the attention of layers whose blocks an indexer chooses."""
    config.only("num_key_value_heads", 1, why="the heads share one key in this family")
    config.only("attention_bias", False, why="transformers has no such biases in this family")
    sizes = {own: config.integer(*([key] if usual is None else [key, usual])) for own, (key, usual) in _SIZES.items()}
    norms = {"norm": {"name": "rms", "eps": eps}, "q_norm": {"name": "rms", "eps": eps, "scale": False}}
    blocks = {"block_size": _rate(config, SPARSE), "overlap": True, "top_k": config.integer("index_topk", 512)}
    return {"name": "compressed", **sizes, "d_rotary": read_rotated(config), **blocks, **norms, "sinks": True}


def _rate(config: ExternalConfig, kind: str) -> int:
    key, usual = _RATES[kind]
    rate = config.section("compress_rates").integer(kind, usual)
    return config.integer(key) if key in config else rate


def read_types_of(config: ExternalConfig, n_layers: int) -> list[dict[str, Any]]:
    """Return the fields of the attention by which each layer differs; those with a window alone have none of blocks."""
    usual = [HEAVY if index < 2 or index % 2 == 0 else SPARSE for index in range(n_layers)]
    if "compress_ratios" in config:
        usual = [_BY_RATIO.get(ratio, str(ratio)) for ratio in config.items("compress_ratios")[:n_layers]]
    types = read_types(config, n_layers, usual, (SLIDING, SPARSE, HEAVY))
    heavy = {"block_size": _rate(config, HEAVY), "overlap": False, "top_k": None}
    own: dict[str, dict[str, Any]] = {SLIDING: {"block_size": None, "top_k": None}, SPARSE: {}, HEAVY: heavy}
    return [own[each] for each in types]


def type_of(attention: Any) -> str:
    """Return the type of a layer."""
    return SLIDING if attention.block_size is None else HEAVY if attention.top_k is None else SPARSE


def write_attention(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the attention, and the types of the layers."""
    first, types = layers[0].attention, [type_of(layer.attention) for layer in layers]
    by_type = {kind: layer.attention for kind, layer in zip(types, layers, strict=True)}
    rates = {kind: by_type[kind].block_size if kind in by_type else usual for kind, (_, usual) in _RATES.items()}
    sizes = {key: getattr(first, own) for own, (key, _) in _SIZES.items()}
    top_k = by_type[SPARSE].top_k if SPARSE in by_type else 512
    return {**sizes, "num_key_value_heads": 1, "layer_types": types, "compress_rates": rates, "index_topk": top_k}
