"""Names of the tensors of Inkling 2. Released files, and those that transformers saves, have names of their own."""

from __future__ import annotations

__all__ = ["ATTENTION", "BLOCK", "RENAMES"]

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
