"""Tiny configurations of transformers' families, small enough to run and odd enough to show a mistake."""

from __future__ import annotations

from typing import Any

VOCAB = 300

# hidden 48, 6 heads of 8, 3 or 2 key/value heads: no number equals another that it could be taken for.
LLAMA: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}
NO_EPS = {key: value for key, value in LLAMA.items() if key != "rms_norm_eps"}
MHA = {key: value for key, value in NO_EPS.items() if key != "num_key_value_heads"}
ROPE = {"rope_theta": 5000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
GEMMA3 = {"head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 24}
OPT = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "ffn_dim": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 64,
}
MPT_ATTENTION = {"clip_qkv": 0.5, "softmax_scale": 0.4}
MPT = {"vocab_size": VOCAB, "d_model": 48, "n_layers": 3, "n_heads": 6, "max_seq_len": 64}
GPT2 = {"vocab_size": VOCAB, "n_positions": 64, "n_embd": 48, "n_layer": 3, "n_head": 6}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2-inner": ("GPT2", {**GPT2, "n_inner": 80, "activation_function": "gelu", "tie_word_embeddings": False}),
    "llama": ("Llama", {**LLAMA, **ROPE}),
    "llama-3.2": (
        "Llama",
        {**LLAMA, "rope_theta": 500.0, "rope_scaling": LLAMA3, "head_dim": 12, "tie_word_embeddings": True},
    ),
    "llama-biases": ("Llama", {**LLAMA, "attention_bias": True, "mlp_bias": True}),
    "llama-linear": ("Llama", {**LLAMA, "rope_scaling": {"rope_type": "linear", "factor": 3.0}}),
    "llama-dynamic": ("Llama", {**LLAMA, "rope_scaling": {"rope_type": "dynamic", "factor": 3.0}}),
    "llama-yarn": ("Llama", {**LLAMA, "rope_scaling": YARN}),
    "mistral": ("Mistral", {**LLAMA, "sliding_window": 7, "head_dim": 10}),
    "mistral-0.3": ("Mistral", {**LLAMA, "sliding_window": None}),
    "qwen2": ("Qwen2", LLAMA),
    "qwen2-windows": ("Qwen2", {**LLAMA, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {**LLAMA, "head_dim": 16, "tie_word_embeddings": True}),
    "gemma": ("Gemma", {**LLAMA, "head_dim": 16}),
    "gemma2": ("Gemma2", {**LLAMA, "head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 24}),
    "gemma3": ("Gemma3Text", {**LLAMA, **GEMMA3, "num_hidden_layers": 7}),
    "gemma3-scaled": ("Gemma3Text", {**LLAMA, **GEMMA3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    "gpt_neox": ("GPTNeoX", {**MHA, "layer_norm_eps": 1e-4, "rotary_pct": 0.5}),
    "gpt_neox-serial": ("GPTNeoX", {**MHA, "use_parallel_residual": False, "rotary_pct": 1.0, "attention_bias": False}),
    "gptj": ("GPTJ", {**GPT2, "rotary_dim": 4}),
    "phi": ("Phi", {**NO_EPS, "partial_rotary_factor": 0.5}),
    "phi-qk-norm": ("Phi", {**NO_EPS, "qk_layernorm": True, "partial_rotary_factor": 1.0}),
    "opt": ("OPT", OPT),
    "opt-350m": ("OPT", {**OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 20}),
    "bloom": ("Bloom", {"vocab_size": VOCAB, "hidden_size": 48, "n_layer": 3, "n_head": 6}),
    "mpt": ("Mpt", MPT),
    "mpt-clipped": (
        "Mpt",
        {**MPT, "n_heads": 8, "attn_config": MPT_ATTENTION},
    ),
    "gpt_bigcode": ("GPTBigCode", GPT2),
    "gpt_bigcode-mha": ("GPTBigCode", {**GPT2, "multi_query": False}),
}
