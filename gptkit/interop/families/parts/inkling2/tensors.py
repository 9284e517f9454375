"""Tensors of Inkling 2. Released files, and those that transformers saves, have names of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gptkit.interop.families.parts.inkling.layouts import FirstRows
from gptkit.interop.layouts import HEADS, Alternating, Halves, Stack
from gptkit.kinds.family import Rule

__all__ = ["RENAMES", "inkling2_rules"]

RENAMES = (
    (r"^model\.llm\.unembed\.", "lm_head."),
    (r"^model\.llm\.", "model."),
    (r"^model\.embed\.", "model.embed_tokens."),
    (r"^model\.embed_norm\.", "model.embed_tokens.embed_norm."),
    (r"^model\.attn_res\.mlp_queries\.(\d+)$", r"model.layers.\1.mlp_input.query"),
    (r"^model\.attn_res\.output_query$", "model.final_input.query"),
    (r"\.attn\.w([qkvr])_d[uv]\.", r".self_attn.\1_proj."),
    (r"\.attn\.wo_ud\.", ".self_attn.o_proj."),
    (r"\.attn\.gate_attn\.", ".self_attn.gate_proj."),
    (r"\.attn\.attn_sink_proj\.", ".self_attn.sink_proj."),
    (r"\.attn\.", ".self_attn."),
    (r"\.attn_sconv\.", ".post_attention_convolution."),
    (r"\.mlp_sconv\.", ".post_mlp_convolution."),
    (r"(convolution|sconv)\.weight$", r"\1.conv1d.weight"),
    (r"sconv\.static_w$", "sconv.static_weight"),
    (r"sconv\.weight_proj$", "sconv.weight_proj.weight"),
    (r"\.mlp_norm\.", ".post_attention_layernorm."),
    (r"\.attn_norm\.", ".input_layernorm."),
    (r"\.([qkv])_input_norm\.", r".\1_input_layernorm."),
    (r"\.mlp\.gate\.bias$", ".mlp.gate.e_score_correction_bias"),
    (r"\.mlp\.experts\.gate_up_proj$", ".mlp.experts.w13_weight"),
    (r"\.mlp\.experts\.w2_weight$", ".mlp.experts.down_proj"),
)
"""Names of files, and those of transformers' modules."""
ATTENTION = {
    "q_norm.weight": "q_l2_clip.scale",
    "relative.norm.weight": "rel_l2_clip.scale",
    "relative.features": "r_proj",
    "relative.table": "rel_logits_proj.proj",
    "token_sinks": "sink_proj",
    "output": "o_proj",
    "key": "k_proj",
    "value": "v_proj",
}
BLOCK = {
    "key_norm": "k_input_layernorm",
    "value_norm": "v_input_layernorm",
    "feedforward_norm": "post_attention_layernorm",
    "feedforward_query": "mlp_input.query",
    "attention_conv": "post_attention_convolution.conv1d",
    "feedforward_conv": "post_mlp_convolution.conv1d",
    "feedforward.router.scores": "mlp.gate",
    "feedforward.router.selection_bias": "mlp.gate.e_score_correction_bias",
    "feedforward.experts.down.weight": "mlp.experts.down_proj",
}


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
