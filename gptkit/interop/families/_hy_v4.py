"""Parts of Hunyuan 4: residual streams, and layers that use the choice of keys of an earlier one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gptkit.interop.families._common import write_activation
from gptkit.interop.families._experts import first_of, write_sparse
from gptkit.interop.families._latent import INDEX_SIZES, INDEXER, RotatedLast, latent
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["GROUPS", "RENAMES", "read_indexers", "read_streams", "rules", "write"]

GROUPS = {"n_groups": "n_group", "top_groups": "topk_group"}
"""Keys of the router's groups, by its fields."""
RENAMES = (
    (r"\.hc_pre\.hc_", ".hc_"),
    (r"\.hc_attn_layer\.hc_", ".attn_hc."),
    (r"\.hc_mlp_layer\.hc_", ".ffn_hc."),
    (r"\.hc_head_(fn|base|scale)$", r".hc_\1"),
    (r"\.linear_gate\.", ".gate_proj."),
    (r"\.learnable_sink_param$", ".sinks"),
)
"""Names of released files, and those of transformers."""
_LEAVES = {"weight": "fn", "bias": "base", "scale": "scale"}


def read_streams(config: ExternalConfig, norm_eps: float) -> dict[str, Any]:
    """Return the block with residual streams that are not mixed."""
    n, eps = config.integer("hc_mult", 4), config.number("hc_eps", 1e-6)
    fields = {"streams": n, "write_scale": config.number("hc_magnitude", 2.0), "write_eps": eps, "eps": eps}
    start = {"gate": 0.01, "read_bias": -math.log(max(n - 1, 1))}
    return {"name": "manifold-hyper-connections", "mixing": "none", **fields, **start, "norm_eps": norm_eps}


def read_indexers(config: ExternalConfig, n_layers: int) -> list[dict[str, Any]]:
    """Return what each layer overrides for the choice of keys: its own, or that of the last layer with an indexer."""
    types = config.items("indexer_types", ["shared" if i and (i - 1) % 4 else "full" for i in range(n_layers)])
    if len(types) != n_layers or not set(types) <= {"full", "shared"} or types[0] != "full":
        config.refuse("indexer_types", f"it should name full or shared for each of {n_layers} layers, full first")
    return [{"attention": {"indexer": "previous"}} if kind == "shared" else {} for kind in types]


def write(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the streams, of the choice of keys, and of the experts."""
    block, attention, experts = layers[0].block, latent(layers).attention, first_of(layers, "experts")
    return {
        "hc_mult": block.streams,
        "hc_magnitude": block.write_scale,
        "hc_eps": block.eps,
        **{key: getattr(attention, own) for own, (key, _) in INDEX_SIZES.items()},
        "indexer_types": ["full" if layer.attention.indexer == "own" else "shared" for layer in layers],
        **{key: getattr(experts.router, own) for own, key in GROUPS.items()},
        "norm_topk_prob": experts.router.renormalize,
        "swiglu_limit": experts.expert.clamp,
        "hidden_act": write_activation(experts.shared.activation),
        **write_sparse(layers),
    }


def rules(model: Any) -> list[Rule]:
    """Return the rules of the indexer, the gates, the streams and the experts."""
    own, layer = "blocks.*.attention", "model.layers.*"
    mixing = {"attention_mixing": "attn_hc", "feedforward_mixing": "ffn_hc"}
    streams = [(f"blocks.*.{part}", f"{layer}.{name}.") for part, name in mixing.items()]
    streams.append((f"blocks.{model.n_layers - 1}.collapse", "model.hc_head.hc_"))
    index = [(part, f"{layer}.self_attn.indexer.{name}") for part, name in INDEXER.items()]
    return [
        *(Rule(f"{own}.indexer.{part}", name, None if part == "weights" else RotatedLast()) for part, name in index),
        *(Rule(f"{part}.{leaf}", name + each) for part, name in streams for leaf, each in _LEAVES.items()),
        Rule(f"{own}.gate", f"{layer}.self_attn.gate_proj"),
        Rule(f"{own}.sinks", f"{layer}.self_attn.sinks"),
        Rule("blocks.*.feedforward.experts.gate_up.weight", f"{layer}.mlp.experts.gate_up_proj"),
        Rule("blocks.*.feedforward.experts.down.weight", f"{layer}.mlp.experts.down_proj"),
    ]
