"""Tensors of Inkling 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.inkling.layouts import FirstRows
from gptkit.interop.families.parts.inkling2.names import ATTENTION, BLOCK
from gptkit.interop.layouts import HEADS, Alternating, Halves, Stack
from gptkit.kinds.family import Rule

__all__ = ["inkling2_rules"]


def inkling2_rules(n_ids: int | None, blocks: Sequence[Any]) -> list[Rule]:
    """Return the rules of a model for a number of ids, and the blocks of its layers."""
    own, layer = "blocks.*", "model.layers.*"
    rules = [
        *(Rule(f"{own}.{native}", f"{layer}.{name}") for native, name in BLOCK.items()),
        *(Rule(f"{own}.attention.{native}", f"{layer}.self_attn.{name}") for native, name in ATTENTION.items()),
        Rule(f"{own}.attention.qkv", f"{layer}.self_attn.{{q,k,v,gate}}_proj", HEADS),
        Rule(f"{own}.attention.query", f"{layer}.self_attn.{{q,gate}}_proj", Halves()),
        Rule(f"{own}.feedforward.experts.gate_up.weight", f"{layer}.mlp.experts.w13_weight", Stack(Alternating())),
        Rule("embedding.table", "model.embed_tokens", FirstRows(n_ids)),
        Rule("embedding.norm", "model.embed_tokens.embed_norm"),
        Rule(f"blocks.{len(blocks) - 1}.output_query", "model.final_input.query"),
        Rule("final_norm", "model.norm"),
        Rule("head", "lm_head", FirstRows(n_ids)),
    ]
    for index, block in enumerate(blocks):
        own, layer = f"blocks.{index}", f"model.layers.{index}"
        norm = "q_input_layernorm" if block.kv_inputs else "input_layernorm"
        rules.append(Rule(f"{own}.attention_norm", f"{layer}.{norm}"))
        rules.append(Rule(f"{own}.attention_query", f"model.attn_res.attn_queries.{index - 1}"))
        for conv in ("k", "v"):
            weight, name = f"{own}.attention.{conv}_conv", f"{layer}.self_attn.{conv}_sconv"
            rules.append(Rule(weight if not block.kv_inputs else f"{weight}.weight", f"{name}.{_conv(block)}"))
            rules.append(Rule(f"{weight}.dynamic", f"{name}.weight_proj"))
    return rules


def _conv(block: Any) -> str:
    return "static_weight" if block.kv_inputs else "conv1d"
