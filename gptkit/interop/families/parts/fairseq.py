"""Layers as fairseq names them, which several families of its models follow."""

from __future__ import annotations

from gptkit.interop.layouts import HEADS
from gptkit.kinds.family import Rule

__all__ = ["layer_rules"]


def layer_rules(layer: str) -> list[Rule]:
    """Return the rules of a layer, whose external name is given: ``model.layers.*``."""
    return [
        Rule("blocks.*.attention_norm", f"{layer}.self_attn_layer_norm"),
        Rule("blocks.*.attention.qkv", f"{layer}.self_attn.{{q,k,v}}_proj", HEADS),
        Rule("blocks.*.attention.output", f"{layer}.self_attn.out_proj"),
        Rule("blocks.*.feedforward_norm", f"{layer}.final_layer_norm"),
        Rule("blocks.*.feedforward.up", f"{layer}.fc1"),
        Rule("blocks.*.feedforward.down", f"{layer}.fc2"),
    ]
