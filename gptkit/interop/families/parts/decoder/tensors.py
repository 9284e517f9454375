"""Tensors by the names of Llama."""

from __future__ import annotations

from gptkit.interop.layouts import HALVES, HEADS
from gptkit.kinds.family import Rule

__all__ = ["llama_rules"]


def llama_rules(inner: str = "mlp") -> list[Rule]:
    """Return the rules of Llama, and of norms that later families have; `inner` is the feed-forward's name in a layer."""
    native, layer = "blocks.*", "model.layers.*"
    return [
        Rule("embedding.table", "model.embed_tokens"),
        Rule(f"{native}.attention_norm", f"{layer}.input_layernorm"),
        Rule(f"{native}.attention.qkv", f"{layer}.self_attn.{{q,k,v}}_proj", HEADS),
        Rule(f"{native}.attention.q_norm", f"{layer}.self_attn.q_norm"),
        Rule(f"{native}.attention.k_norm", f"{layer}.self_attn.k_norm"),
        Rule(f"{native}.attention.output", f"{layer}.self_attn.o_proj"),
        Rule(f"{native}.feedforward_norm", f"{layer}.post_attention_layernorm"),
        Rule(f"{native}.feedforward.gate_up", f"{layer}.{inner}.{{gate,up}}_proj", HALVES),
        Rule(f"{native}.feedforward.up", f"{layer}.{inner}.up_proj"),
        Rule(f"{native}.feedforward.down", f"{layer}.{inner}.down_proj"),
        Rule("final_norm", "model.norm"),
        Rule("head", "lm_head"),
    ]
