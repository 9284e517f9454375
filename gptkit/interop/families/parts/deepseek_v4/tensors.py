"""Tensors by their names in files."""

from __future__ import annotations

from typing import Any

from gptkit.interop.layouts import HALVES
from gptkit.kinds.family import Rule

__all__ = ["RENAMES", "rules"]

RENAMES = ((r"^embed\.", "embed_tokens."), (r"^hc_head_(fn|base|scale)$", r"hc_head.hc_\1"))
"""Names of released files, and those that transformers writes."""
_ATTENTION = {"q_down": "wq_a", "q_latent_norm": "q_norm", "q_up": "wq_b", "kv": "wkv", "kv_norm": "norm"}
_ATTENTION |= {"output_down": "wo_a", "output": "wo_b", "sinks": "attn_sink"}
_ATTENTION |= {"indexer.query": "indexer.wq_b", "indexer.weights": "indexer.weights_proj"}
_COMPRESSOR = {"content": "wkv", "gate": "wgate", "norm": "norm", "position_bias": "ape"}
for _owner in ("compressor", "indexer.compressor"):
    _ATTENTION |= {f"{_owner}.{own}": f"{_owner}.{name}" for own, name in _COMPRESSOR.items()}
_FEEDFORWARD = {"router.scores": "gate", "router.selection_bias": "gate.bias", "router.table": "gate.tid2eid"}
_FEEDFORWARD |= {"experts.down": "experts.#.w2", "shared.down": "shared_experts.w2"}
_PAIRS = {"experts.gate_up": "experts.#.{w1,w3}", "shared.gate_up": "shared_experts.{w1,w3}"}
_MIXING = {"attention_mixing": "hc_attn_", "feedforward_mixing": "hc_ffn_"}
_LEAVES = {"weight": "fn", "bias": "base", "scale": "scale"}


def rules(model: Any) -> list[Rule]:
    """Return the rules of all tensors, in addition to those of Llama."""
    native, layer = "blocks.*", "model.layers.*"
    mixing = [(f"{native}.{part}", f"{layer}.{name}") for part, name in _MIXING.items()]
    mixing.append((f"blocks.{model.n_layers - 1}.collapse", "model.hc_head.hc_"))
    return [
        *(Rule(f"{native}.attention.{own}", f"{layer}.attn.{name}") for own, name in _ATTENTION.items()),
        *(Rule(f"{native}.feedforward.{own}", f"{layer}.ffn.{name}") for own, name in _FEEDFORWARD.items()),
        *(Rule(f"{native}.feedforward.{own}", f"{layer}.ffn.{name}", HALVES) for own, name in _PAIRS.items()),
        *(Rule(f"{part}.{leaf}", name + each) for part, name in mixing for leaf, each in _LEAVES.items()),
        Rule(f"{native}.attention_norm", f"{layer}.attn_norm"),
        Rule(f"{native}.feedforward_norm", f"{layer}.ffn_norm"),
        Rule("head", "head"),
    ]
