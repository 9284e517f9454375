"""Parts of MiniMax M3: layers that attend to chosen blocks of keys, by the keys of released files and of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.keys import keys
from gptkit.interop.families.parts.layers import read_types
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["TINY", "read_layers", "rules", "write_layers"]

_SPARSE = "minimax_m3_sparse"
_OLD = "sparse_attention_config"
_SIZES = {
    "index_heads": ("index_n_heads", "sparse_num_index_heads", 4),
    "d_index": ("index_head_dim", "sparse_index_dim", 128),
    "block_size": ("index_block_size", "sparse_block_size", 128),
    "top_blocks": ("index_topk_blocks", "sparse_topk_blocks", 16),
    "local_blocks": ("index_local_blocks", "sparse_local_block", 1),
}
"""Keys of the indexer by the fields of `block-sparse`: the present one, that of released files, and the default."""
TINY = {
    "head_dim": 12,
    "layer_types": ["full_attention", "minimax_m3_sparse"] * 2,
    "index_n_heads": 4,
    "index_head_dim": 16,
    "index_block_size": 4,
    "index_topk_blocks": 2,
    "mlp_layer_types": ["dense", "sparse"] * 2,
    "dense_intermediate_size": 40,
    "shared_intermediate_size": 20,
    "num_local_experts": 4,
}
"""A configuration for the conformance kit."""
_INDEXER = {"query": "q_proj", "key": "k_proj", "query_norm": "q_norm", "key_norm": "k_norm"}


def read_layers(config: ExternalConfig, n_layers: int, full: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what each layer overrides for its attention; `full` is that of layers that attend to all keys."""
    # transformers selects blocks in the layers listed, whatever these keys say.
    old = config.section(_OLD, keys("use_sparse_attention sparse_disable_index_value"))
    old.only("sparse_score_type", "max", why="transformers has nothing else")
    old.only("sparse_init_block", 0, why="transformers has no such blocks")
    listed = old.items("sparse_attention_freq", [])
    usual = [_SPARSE if each else "full_attention" for each in listed] or ["full_attention"] * n_layers
    types = read_types(config, n_layers, usual, (_SPARSE, "full_attention"))
    fields: dict[str, Any] = {**full, "name": "block-sparse", "index_norm": full["qk_norm"]}
    for own, (key, former, default) in _SIZES.items():
        value = config.integer(key, default)
        fields[own] = old.integer(former) if former in old else value
    if fields["d_index"] < full["d_head"] and _SPARSE in types:
        config.refuse("index_head_dim", "it should be at least head_dim: the first features are rotated as there")
    return [{"attention": fields} if kind == _SPARSE else {} for kind in types]


def write_layers(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys that `read_layers` reads."""
    attentions = [layer.attention for layer in layers]
    sparse = next((each for each in attentions if each.name == "block-sparse"), None)
    sizes = {} if sparse is None else {key: getattr(sparse, own) for own, (key, _, _) in _SIZES.items()}
    return {**sizes, "layer_types": [_SPARSE if each.name == "block-sparse" else "full_attention" for each in attentions]}


def rules() -> list[Rule]:
    """Return the rules of the indexer, and of the feed-forwards, whose projections are packed in transformers."""
    own, block = "blocks.*.feedforward", "model.layers.*.mlp"
    index = ("blocks.*.attention.indexer", "model.layers.*.self_attn.indexer")
    return [
        *(Rule(f"{index[0]}.{part}", f"{index[1]}.{name}") for part, name in _INDEXER.items()),
        Rule(f"{own}.gate_up", f"{block}.gate_up_proj"),
        Rule(f"{own}.shared.gate_up", f"{block}.shared_experts.gate_up_proj"),
        Rule(f"{own}.shared.down", f"{block}.shared_experts.down_proj"),
        Rule(f"{own}.experts.gate_up.weight", f"{block}.experts.gate_up_proj"),
        Rule(f"{own}.experts.down.weight", f"{block}.experts.down_proj"),
    ]
