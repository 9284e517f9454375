"""Parts of Hunyuan 4: residual streams, and layers that use the choice of keys of an earlier one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.activations import write_activation
from gptkit.interop.families.parts.experts import first_of, write_groups, write_sparse
from gptkit.interop.families.parts.latent import INDEXER, RotatedLast, write_indexers
from gptkit.kinds.external_config import ExternalConfig
from gptkit.kinds.family import Rule

__all__ = ["RENAMES", "read_streams", "rules", "write"]

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


def write(layers: Sequence[Any]) -> dict[str, Any]:
    """Return the keys of the streams, of the choice of keys, and of the experts."""
    block, experts = layers[0].block, first_of(layers, "experts")
    return {
        "hc_mult": block.streams,
        "hc_magnitude": block.write_scale,
        "hc_eps": block.eps,
        **write_indexers(layers),
        **write_groups(experts.router),
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
