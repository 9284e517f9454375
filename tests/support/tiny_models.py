"""Tiny configurations of transformers' families, with sizes chosen to expose errors."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

VOCAB = 300


class Models(dict[str, tuple[str, dict[str, Any]]]):
    """Classes and options by name. Each access returns a copy: classes of transformers change mappings they receive."""

    def __getitem__(self, name: str) -> tuple[str, dict[str, Any]]:
        return copy.deepcopy(super().__getitem__(name))

    def values(self) -> Iterable[tuple[str, dict[str, Any]]]:  # type: ignore[override]
        return [self[name] for name in self]


# hidden 48, 6 heads of 8, 3 or 2 key/value heads: sizes that could be confused differ.
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
GEMMA4 = {
    "num_hidden_layers": 7,
    "head_dim": 16,
    "global_head_dim": 24,
    "sliding_window": 6,
    "layer_types": [f"{kind}_attention" for kind in ("sliding", "full", "sliding", "full", "sliding", "sliding", "full")],
    "vocab_size_per_layer_input": VOCAB,
    "hidden_size_per_layer_input": 10,
}
GEMMA3N = {
    **{key: value for key, value in GEMMA4.items() if key != "global_head_dim"},
    "vocab_size_per_layer_input": 180,  # fewer than the vocabulary, as in the released models
    "intermediate_size": [72, 72, 64, 64, 72, 80, 80],
    "activation_sparsity_pattern": [0.9, 0.7, 0.0, 0.0, 0.5, 0.0, 0.0],
    "num_kv_shared_layers": 3,
    "altup_num_inputs": 3,
    "laurel_rank": 7,
    "final_logit_softcapping": 5.0,
}
GEMMA4_EXPERTS = {"enable_moe_block": True, "num_experts": 6, "top_k_experts": 2, "moe_intermediate_size": 24}
OPT = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "ffn_dim": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 64,
}
FALCON = {"vocab_size": VOCAB, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6}
NEW_FALCON = {"new_decoder_architecture": True, "num_kv_heads": 3, "ffn_hidden_size": 100}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.5, 2.0, 4.0, 9.0]}
GRANITE = {
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SHARP = {**YARN, "mscale": 1.0, "mscale_all_dim": 0.9}
LIMITED = {"topk_method": "group_limited_greedy", "q_lora_rank": None}
GROUPS = {"n_group": 4, "topk_group": 2, "num_experts_per_tok": 3, "routed_scaling_factor": 1.7}
LATENT = {
    "num_key_value_heads": 6,
    "q_lora_rank": 20,
    "kv_lora_rank": 12,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 10,
    "v_head_dim": 6,
    "moe_intermediate_size": 24,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "rms_norm_eps": 1e-4,
}
GLM = {"head_dim": 16, "moe_intermediate_size": 24, "n_routed_experts": 8, "first_k_dense_replace": 1}
LLAMA4 = {
    "num_hidden_layers": 5,
    "head_dim": 16,
    "num_local_experts": 4,
    "intermediate_size_mlp": 56,
    "attention_chunk_size": 16,
    "floor_scale": 8,
    "pad_token_id": 0,
}
LINEAR_SIZES = {
    "head_dim": 16,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
LINEAR = {**LINEAR_SIZES, "shared_expert_intermediate_size": 20}
MAMBA = {
    "num_hidden_layers": 4,
    "mamba_n_heads": 8,
    "mamba_d_head": 12,
    "mamba_n_groups": 2,
    "mamba_d_state": 6,
    "mamba_d_conv": 3,
}
HYBRID = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
    "shared_intermediate_size": 40,
}
MPT_ATTENTION = {"clip_qkv": 0.5, "softmax_scale": 0.4}
MPT = {"vocab_size": VOCAB, "d_model": 48, "n_layers": 3, "n_heads": 6, "max_seq_len": 64}
GPT2 = {"vocab_size": VOCAB, "n_positions": 64, "n_embd": 48, "n_layer": 3, "n_head": 6}

SMALL_WINDOWS = {
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 14,
    "kv_lora_rank": 10,
    "head_dim": 16,
    "qk_nope_head_dim": 10,
    "v_head_dim": 8,
}
NEOX_JAPANESE = {
    **{key: value for key, value in MHA.items() if key != "intermediate_size"},
    "intermediate_multiple_size": 3,
    "pad_token_id": 0,
}
XGLM = {
    "vocab_size": VOCAB,
    "d_model": 48,
    "ffn_dim": 80,
    "num_layers": 3,
    "attention_heads": 6,
    "max_position_embeddings": 64,
}

SHARED = {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 20}
LINEAR_HYBRID = {"num_hidden_layers": 4, "layer_types": ["linear_attention", "full_attention"] * 2}
ERNIE = {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24, "moe_num_shared_experts": 2}
NO_YOUTU = frozenset({"moe_intermediate_size", "n_routed_experts", "num_experts_per_tok", "first_k_dense_replace"})
LFM2 = {**NO_EPS, "norm_eps": 1e-4, "num_hidden_layers": 4, "layer_types": ["conv", "full_attention", "conv", "conv"]}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
"""Ids of special tokens where the defaults of a class are outside of the vocabulary."""
LFM3 = {
    **LFM2,
    **IDS,
    "num_hidden_layers": 5,
    "layer_types": ["conv", "sliding_attention", "full_attention", "conv", "sliding_attention"],
    "head_dim": 16,
    "sliding_window": 6,
}
TEMPERED = {**YARN, "rope_theta": 5000.0, "llama_4_scaling_beta": 0.3, "original_max_position_embeddings": 8}
BEAM = {
    **LLAMA,
    **EXPERTS,
    **GROUPS,
    "num_experts": 8,
    "num_hidden_layers": 7,
    "head_dim": 10,
    "sliding_window": 6,
    "rms_norm_eps": 1e-4,
}
AFMOE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "num_shared_experts": 2}

LAYERED = {
    **{key: value for key, value in NO_EPS.items() if key != "num_hidden_layers"},
    "layer_norm_epsilon": 1e-4,
    "head_dim": 10,
    "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp", "linear_attention"],
    "mamba_num_heads": 8,
    "mamba_head_dim": 12,
    "n_groups": 2,
    "ssm_state_size": 6,
    "conv_kernel": 3,
    "moe_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 20,
    "num_experts_per_tok": 3,
}
HYBRID_LATENT = {
    **{
        key: LATENT[key]
        for key in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "moe_intermediate_size")
    },
    "num_key_value_heads": 6,
    "num_hidden_layers": 4,
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

MINIMAX_FACTORS = {
    "full_attn_alpha_factor": 1.7,
    "full_attn_beta_factor": 0.8,
    "linear_attn_alpha_factor": 2.1,
    "linear_attn_beta_factor": 0.6,
    "mlp_alpha_factor": 1.3,
    "mlp_beta_factor": 1.4,
}
FALCON_H1 = {
    "mamba_d_ssm": 40,
    "mamba_n_heads": 4,
    "mamba_d_head": 10,
    "mamba_n_groups": 2,
    "mamba_d_state": 6,
    "mamba_d_conv": 3,
    "embedding_multiplier": 5.5,
    "lm_head_multiplier": 0.25,
    "key_multiplier": 0.4,
    "attention_in_multiplier": 1.2,
    "attention_out_multiplier": 0.9,
    "ssm_in_multiplier": 1.25,
    "ssm_out_multiplier": 0.3,
    "ssm_multipliers": [0.35, 0.25, 0.4, 0.5, 0.7],
    "mlp_multipliers": [0.9, 0.6],
}

MIMO = {
    "num_attention_heads": 8,
    "head_dim": 12,
    "v_head_dim": 6,
    "sliding_window": 6,
    "moe_intermediate_size": 24,
    "n_routed_experts": 6,
    "num_experts_per_tok": 3,
}
PURE_MAMBA = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "n_groups": 2,
    "state_size": 6,
    "conv_kernel": 3,
    "layer_norm_epsilon": 1e-4,
}

MAMBA1 = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "state_size": 6,
    "conv_kernel": 3,
    "time_step_rank": 5,
    "layer_norm_epsilon": 1e-4,
}
JAMBA = {
    "num_hidden_layers": 5,
    "attn_layer_period": 3,
    "attn_layer_offset": 1,
    "num_experts": 4,
    "mamba_d_state": 6,
    "mamba_d_conv": 3,
    "mamba_dt_rank": 5,
}
LONGCAT = {
    **{key: value for key, value in LATENT.items() if key not in ("moe_intermediate_size", "num_experts_per_tok")},
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "ffn_hidden_size": 72,
    "expert_ffn_hidden_size": 24,
    "num_layers": 2,
    "num_attention_heads": 6,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "n_routed_experts": 5,
    "zero_expert_num": 3,
    "moe_topk": 3,
}
del LONGCAT["first_k_dense_replace"]
GRIFFIN = {
    **{key: value for key, value in LLAMA.items() if key != "max_position_embeddings"},
    "num_hidden_layers": 4,
    "attention_window_size": 6,
    "lru_width": 42,
    "logits_soft_cap": 3.0,
}

ZAMBA2 = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 6,
    "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid", "hybrid", "hybrid"],
    "num_attention_heads": 6,
    "n_mamba_heads": 4,
    "mamba_d_state": 6,
    "mamba_ngroups": 2,
    "num_mem_blocks": 2,
    "adapter_rank": 5,
    "use_shared_attention_adapter": True,
    "use_mem_rope": True,
    "max_position_embeddings": 64,
    "pad_token_id": None,
}
QWEN4 = {
    **LLAMA,
    **EXPERTS,
    **LINEAR,
    "num_hidden_layers": 5,
    "head_dim": 16,
    "indexer_n_heads": 16,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 24,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
    "hc_count": 3,
    "hc_lowrank": 10,
    "ple_layer_ids": [1, 3],
    "ple_embed_dim": 24,
    "ngram_vocab_size_base": 29,
    "heads_per_ngram": 2,
    "make_ngram_vocab_size_divisible_by": 4,
    "split_ngram_parts": 2,
    "eos_token_id": 7,
    "shared_expert_intermediate_size": 20,
}
INKLING = {
    **LLAMA,
    "head_dim": 12,
    "swa_num_attention_heads": 6,
    "swa_num_key_value_heads": 3,
    "swa_head_dim": 8,
    "sliding_window_size": 6,
    "d_rel": 5,
    "rel_extent": 9,
    "moe_intermediate_size": 20,
    "n_routed_experts": 5,
    "num_experts_per_tok": 2,
    "layer_types": ["hybrid_sliding", "hybrid", "hybrid_sliding"],
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "logits_mup_width_multiplier": 3.0,
    "pad_token_id": None,
}
INKLING2 = {
    **{key: value for key, value in LLAMA.items() if key != "intermediate_size"},
    "unpadded_vocab_size": VOCAB,
    "head_dim": 12,
    "swa_num_attention_heads": 6,
    "swa_num_key_value_heads": 3,
    "swa_head_dim": 8,
    "sliding_window_size": 6,
    "d_rel": 5,
    "rel_extent": 9,
    "moe_intermediate_size": 20,
    "n_routed_experts": 5,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 5,
    "layer_types": ["hybrid_sliding", "hybrid", "hybrid_sliding", "hybrid", "hybrid_sliding"],
    "n_layers_per_attn_res_block": 2,
    "qk_l2_clip_threshold": 3.0,
    "rel_l2_clip_threshold": 1.5,
    "mlp_gate_softcap": 1.5,
    "mlp_up_softcap": 2.0,
    "pad_token_id": None,
    "eos_token_id": None,
}
ZAYA = {
    **{key: value for key, value in LLAMA.items() if key != "intermediate_size"},
    "head_dim": 12,
    "moe_intermediate_size": 20,
    "num_experts": 4,
    "router_hidden_size": 12,
    "pad_token_id": None,
}
ZAMBA = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 5,
    "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid", "hybrid"],
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "n_mamba_heads": 3,
    "mamba_d_state": 6,
    "mamba_dt_rank": 5,
    "max_position_embeddings": 64,
    "pad_token_id": None,
}
JETMOE = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_key_value_heads": 3,
    "kv_channels": 8,
    "num_local_experts": 4,
    "max_position_embeddings": 64,
}
MODERNBERT = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "max_position_embeddings": 64,
    "local_attention": 12,
    **IDS,
}
XLSTM = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_heads": 3,
    "ffn_proj_factor": 1.7,
    "norm_eps": 1e-4,
    "gate_soft_cap": 5.0,
    "output_logit_soft_cap": 3.0,
}
RWKV = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 5,
    "context_length": 64,
    "layer_norm_epsilon": 1e-4,
    "rescale_every": 2,
}

# With few heads, many scores are 0, and which of them are chosen depends on the implementation.
INDEXED = {"index_topk": 7, "index_head_dim": 12, "index_n_heads": 24}
HY_V4 = {
    **IDS,
    **{key: value for key, value in {**LLAMA, **LATENT, **INDEXED}.items() if key != "first_k_dense_replace"},
    "hc_mult": 3,
    "hc_eps": 1e-3,
    "swiglu_limit": 0.6,
}
DEEPSEEK_V4 = {
    **IDS,
    **{key: value for key, value in LLAMA.items() if key != "intermediate_size"},
    "num_hidden_layers": 5,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "partial_rotary_factor": 0.5,
    "q_lora_rank": 20,
    "o_groups": 3,
    "o_lora_rank": 10,
    "sliding_window": 6,
    "layer_types": [
        "sliding_attention",
        "heavily_compressed_attention",
        "compressed_sparse_attention",
        "heavily_compressed_attention",
        "compressed_sparse_attention",
    ],
    "compress_rates": {"compressed_sparse_attention": 3, "heavily_compressed_attention": 8},
    "mlp_layer_types": ["hash_moe", "hash_moe", "moe", "moe", "moe"],
    "index_n_heads": 24,
    "index_head_dim": 10,
    "index_topk": 4,
    "moe_intermediate_size": 24,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "hc_mult": 3,
    "hc_eps": 1e-3,
    "swiglu_limit": 0.6,
    "rope_theta": 5000.0,
    "compress_rope_theta": 9000.0,
}
MINIMAX_M3 = {
    **LLAMA,
    **IDS,
    "head_dim": 12,
    "num_hidden_layers": 4,
    "layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse", "full_attention"],
    "mlp_layer_types": ["dense", "sparse", "dense", "sparse"],
    "dense_intermediate_size": 56,
    "shared_intermediate_size": 40,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "index_n_heads": 2,
    "index_head_dim": 12,
    "index_block_size": 4,
    "index_topk_blocks": 3,
    "swiglu_limit": 0.6,
}

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
    "gemma4": (
        "Gemma4Text",
        {**LLAMA, **GEMMA4, "num_kv_shared_layers": 3, "use_double_wide_mlp": True, "final_logit_softcapping": 5.0},
    ),
    "gemma3n": ("Gemma3nText", {**LLAMA, **GEMMA3N}),
    "gemma4_unified": (
        "Gemma4UnifiedText",
        {
            **LLAMA,
            **{key: value for key, value in GEMMA4.items() if "per_layer_input" not in key},
            "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "use_bidirectional_attention": None,
        },
    ),
    "gpt_neox": ("GPTNeoX", {**MHA, "layer_norm_eps": 1e-4, "rotary_pct": 0.5}),
    "gpt_neox-serial": ("GPTNeoX", {**MHA, "use_parallel_residual": False, "rotary_pct": 1.0, "attention_bias": False}),
    "gptj": ("GPTJ", {**GPT2, "rotary_dim": 4}),
    "phi": ("Phi", {**NO_EPS, "partial_rotary_factor": 0.5}),
    "phi-qk-norm": ("Phi", {**NO_EPS, "qk_layernorm": True, "partial_rotary_factor": 1.0}),
    "dbrx": (
        "Dbrx",
        {
            **{key: value for key, value in MPT.items() if key != "expansion_ratio"},
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 0.5, "rope_theta": 5000.0},
            "ffn_config": {"ffn_hidden_size": 28, "moe_num_experts": 5, "moe_top_k": 2},
            "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
        },
    ),
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
    "falcon-7b": ("Falcon", FALCON),
    "falcon-40b": ("Falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon-11b": ("Falcon", {**FALCON, **NEW_FALCON, "num_ln_in_parallel_attn": 1}),
    "falcon-rw": ("Falcon", {**FALCON, "alibi": True, "multi_query": False, "parallel_attn": False, "bias": True}),
    "olmo": ("Olmo", {**NO_EPS, "clip_qkv": 0.4}),
    "olmo2": ("Olmo2", LLAMA),
    "olmo3": ("Olmo3", {**LLAMA, "num_hidden_layers": 5, "sliding_window": 6}),
    "olmo3-long": ("Olmo3", {**LLAMA, "num_hidden_layers": 4, "sliding_window": 6, "rope_scaling": YARN}),
    "cohere": ("Cohere", NO_EPS),
    "cohere-plus": ("Cohere", {**NO_EPS, "use_qk_norm": True, "num_hidden_layers": 2}),
    "cohere2": ("Cohere2", {**NO_EPS, "num_hidden_layers": 5, "sliding_window": 6}),
    "nemotron": ("Nemotron", {**NO_EPS, "head_dim": 16}),
    "phi3": ("Phi3", {**LLAMA, "sliding_window": 9, "pad_token_id": 0}),
    "phi3-long": ("Phi3", {**LLAMA, "pad_token_id": 0, "original_max_position_embeddings": 32, "rope_scaling": LONGROPE}),
    "smollm3": ("SmolLM3", {**LLAMA, "num_hidden_layers": 5, "pad_token_id": 0}),
    "granite": ("Granite", {**LLAMA, **GRANITE}),
    "starcoder2": ("Starcoder2", {**NO_EPS, "sliding_window": 7}),
    "stablelm": ("StableLm", {**NO_EPS, "use_qkv_bias": True, "partial_rotary_factor": 0.5}),
    "stablelm-qk-norm": ("StableLm", {**NO_EPS, "qk_layernorm": True, "partial_rotary_factor": 0.5}),
    "stablelm-parallel": ("StableLm", {**NO_EPS, "use_parallel_residual": True, "partial_rotary_factor": 0.5}),
    "mixtral": ("Mixtral", {**LLAMA, "num_local_experts": 4}),
    "qwen3_moe": ("Qwen3Moe", {**LLAMA, **EXPERTS, "head_dim": 16}),
    "qwen3_moe-some": ("Qwen3Moe", {**LLAMA, **EXPERTS, "norm_topk_prob": True, "decoder_sparse_step": 2}),
    "olmoe": ("Olmoe", {**LLAMA, "num_experts": 5, "num_experts_per_tok": 3}),
    "olmoe-clipped": ("Olmoe", {**LLAMA, "num_experts": 5, "num_experts_per_tok": 3, "clip_qkv": 0.8}),
    "granitemoe": ("GraniteMoe", {**LLAMA, **GRANITE, "num_local_experts": 4}),
    "gpt_oss": ("GptOss", {**LLAMA, "head_dim": 16, "sliding_window": 6, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v2": ("DeepseekV2", {**LLAMA, **LATENT}),
    "deepseek_v2-groups": (
        "DeepseekV2",
        {**LLAMA, **LATENT, **GROUPS, **LIMITED},
    ),
    "deepseek_v2-yarn": ("DeepseekV2", {**LLAMA, **LATENT, "rope_scaling": {**SHARP, "mscale": 0.7}}),
    "deepseek_v3": ("DeepseekV3", {**LLAMA, **LATENT, **GROUPS}),
    "deepseek_v3-yarn": (
        "DeepseekV3",
        {**LLAMA, **LATENT, **GROUPS, "rope_scaling": SHARP},
    ),
    "glm4_moe": ("Glm4Moe", {**LLAMA, **GROUPS, **GLM}),
    "glm4_moe-qk-norm": ("Glm4Moe", {**LLAMA, **GROUPS, **GLM, "use_qk_norm": True, "attention_bias": True}),
    "phimoe": ("Phimoe", {**LLAMA, "num_local_experts": 4, "attention_bias": True, "lm_head_bias": True}),
    "llama4": ("Llama4Text", {**LLAMA, **LLAMA4}),
    "llama4-dense": ("Llama4Text", {**LLAMA, **LLAMA4, "interleave_moe_layer_step": 2, "use_qk_norm": False}),
    "bamba": ("Bamba", {**LLAMA, **MAMBA, "attn_layer_indices": [1]}),
    "bamba-limited": (
        "Bamba",
        {**LLAMA, **MAMBA, "attn_layer_indices": [0, 3], "mamba_proj_bias": True, "time_step_limit": [0.2, 1.5]},
    ),
    "granitemoehybrid": (
        "GraniteMoeHybrid",
        {**LLAMA, **GRANITE, **MAMBA, **HYBRID, "num_local_experts": 4},
    ),
    "granitemoehybrid-dense": (
        "GraniteMoeHybrid",
        {**LLAMA, **GRANITE, **MAMBA, **HYBRID, "num_local_experts": 0, "position_embedding_type": "rope"},
    ),
    "qwen3_next": ("Qwen3Next", {**LLAMA, **EXPERTS, **LINEAR, "num_hidden_layers": 5}),
    "glm": ("Glm", {**LLAMA, "head_dim": 16, "pad_token_id": 0}),
    "glm4": ("Glm4", {**LLAMA, "head_dim": 16, "pad_token_id": 0, "attention_bias": False}),
    "seed_oss": ("SeedOss", {**LLAMA, "head_dim": 16, "attention_out_bias": True}),
    "exaone4": ("Exaone4", {**LLAMA, "num_hidden_layers": 5, "sliding_window": 6}),
    "arcee": ("Arcee", {**LLAMA, "mlp_bias": True}),
    "helium": ("Helium", {**LLAMA, "head_dim": 8, "attention_bias": True}),
    "ernie4_5": ("Ernie4_5", {**LLAMA, "head_dim": 16, "use_bias": True}),
    "ernie4_5_moe": ("Ernie4_5_Moe", {**LLAMA, **ERNIE}),
    "qwen2_moe": ("Qwen2Moe", {**LLAMA, **EXPERTS, **SHARED}),
    "ministral3": ("Ministral3", {**LLAMA, "head_dim": 16, "rope_parameters": TEMPERED}),
    "hunyuan_v1_dense": ("HunYuanDenseV1", {**LLAMA, "head_dim": 16}),
    "hunyuan_v1_moe": ("HunYuanMoEV1", {**LLAMA, "head_dim": 16, "num_experts": 4, "moe_topk": 2}),
    "dots1": ("Dots1", {**LLAMA, **GROUPS, **GLM, "n_shared_experts": 2, "sliding_window": 6, "max_window_layers": 1}),
    "minimax_m2": (
        "MiniMaxM2",
        {**LLAMA, "head_dim": 16, "rotary_dim": 8, "num_local_experts": 5, "num_experts_per_tok": 3},
    ),
    "persimmon": ("Persimmon", {**MHA, "layer_norm_eps": 1e-4}),
    "gpt_neo": (
        "GPTNeo",
        {
            "vocab_size": VOCAB,
            "hidden_size": 48,
            "num_layers": 3,
            "num_heads": 6,
            "max_position_embeddings": 64,
            "attention_types": [[["global", "local"], 1], [["local"], 1]],
            "window_size": 6,
        },
    ),
    "granitemoeshared": (
        "GraniteMoeShared",
        {**LLAMA, **GRANITE, "num_local_experts": 4, "shared_intermediate_size": 40},
    ),
    "vaultgemma": ("VaultGemma", {**LLAMA, "head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 24}),
    "nanochat": ("NanoChat", {**LLAMA, "final_logit_softcapping": 4.0}),
    "jais2": ("Jais2", {**NO_EPS, "layer_norm_eps": 1e-4}),
    "apertus": ("Apertus", {**LLAMA, "rope_scaling": LLAMA3}),
    "qwen3_5": ("Qwen3_5Text", {**LLAMA, **LINEAR_SIZES, "num_hidden_layers": 5}),
    "qwen3_5_moe": ("Qwen3_5MoeText", {**LLAMA, **EXPERTS, **LINEAR, "num_hidden_layers": 5}),
    "qwen4_exp_text": ("Qwen4ExpText", QWEN4),
    "qwen4_exp_text-few": (
        "Qwen4ExpText",
        {
            **QWEN4,
            "layer_types": ["linear_attention"] * 2 + ["full_attention", "linear_attention", "indexed_attention"],
            "ple_layer_ids": [2],
            "ple_embed_dim": None,
            "ngram_size": 2,
            "heads_per_ngram": 3,
            "ple_conv_kernel_size": 2,
            "seed": 99,
            "split_ngram_parts": 1,
            "hc_count": 2,
            "attention_bias": True,
            "norm_topk_prob": False,
            "indexer_head_dim": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.25},
            "rms_norm_eps": 1e-3,
        },
    ),
    "olmo_hybrid": (
        "OlmoHybrid",
        {
            **LLAMA,
            **LINEAR_HYBRID,
            "linear_key_head_dim": 8,
            "rope_parameters": {"rope_type": "default", "rope_theta": None},
            "pad_token_id": 0,
        },
    ),
    "cohere2_moe": (
        "Cohere2Moe",
        {**NO_EPS, "num_hidden_layers": 5, "head_dim": 16, "sliding_window": 6, "num_experts": 4, "num_shared_experts": 2},
    ),
    "glm4_moe_lite": ("Glm4MoeLite", {**LLAMA, **LATENT, **GROUPS, "mlp_layer_types": ["dense", "sparse", "sparse"]}),
    "afmoe": ("Afmoe", {**LLAMA, **AFMOE, "head_dim": 16, "num_hidden_layers": 5, "sliding_window": 6, "mup_enabled": True}),
    "iquestcoder": ("IQuestCoder", {**LLAMA, "head_dim": 16, "attention_bias": True}),
    "internlm3": ("InternLM3", {**LLAMA, "head_dim": 16, "attention_bias": True, "mlp_bias": True}),
    "cwm": ("Cwm", {**LLAMA, "head_dim": 16, "num_hidden_layers": 5, "sliding_window": 6, "rope_scaling": LLAMA3}),
    "ministral": (
        "Ministral",
        {**LLAMA, "head_dim": 16, "sliding_window": 6, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]},
    ),
    "mellum": (
        "Mellum",
        {
            **LLAMA,
            **EXPERTS,
            "head_dim": 16,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "mlp_layer_types": ["dense", "sparse", "sparse"],
        },
    ),
    "flex_olmo": ("FlexOlmo", {**LLAMA, "num_experts": 5, "num_experts_per_tok": 3, "pad_token_id": 0}),
    "solar_open": ("SolarOpen", {**LLAMA, **GROUPS, **GLM, "first_k_dense_replace": 0, "attention_bias": True}),
    "exaone_moe": (
        "ExaoneMoe",
        {**LLAMA, **GROUPS, **EXPERTS, "num_experts": 8, "num_hidden_layers": 5, "sliding_window": 6},
    ),
    "youtu": ("Youtu", {key: value for key, value in {**LLAMA, **LATENT}.items() if key not in NO_YOUTU}),
    "granite_swa": (
        "GraniteSWA",
        {**LLAMA, **GRANITE, "num_hidden_layers": 4, "sliding_window": 6, "layer_rope_theta": [5e3, 5e3, 1e4, 0]},
    ),
    "hy_v3": ("HYV3", {**LLAMA, **EXPERTS, "head_dim": 16, "num_shared_experts": 2}),
    "flint": ("Flint", {**LLAMA, **EXPERTS, **SHARED, "head_dim": 16, "num_hidden_layers": 5, "sliding_window": 6}),
    "minicpm3": (
        "MiniCPM3",
        {**{key: LATENT[key] for key in LATENT if key not in NO_YOUTU}, **LLAMA, "num_key_value_heads": 6},
    ),
    "granitemoe_swa": (
        "GraniteMoeSWA",
        {**LLAMA, **GRANITE, "num_local_experts": 4, "sliding_window": 6, "layer_rope_theta": [1e4, 0, 5e3]},
    ),
    "mistral4": ("Mistral4", {**LLAMA, **LATENT, **GROUPS, "n_shared_experts": 1, "rope_parameters": TEMPERED}),
    "lfm2": ("Lfm2", {**LFM2, "block_multiple_of": 8, "intermediate_size": 100}),
    "lfm2_moe": ("Lfm2Moe", {**LFM2, **EXPERTS, "num_dense_layers": 1, "routed_scaling_factor": 1.5}),
    "lfm3": ("Lfm3", LFM3),
    "hrm_text": ("HrmText", {**LLAMA, "num_key_value_heads": 6, "num_hidden_layers": 2, "head_dim": 10, "L_cycles": 2}),
    "minimax_m3": (
        "MiniMaxM3VLText",
        {**MINIMAX_M3, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5}},
    ),
    "hy_v4": ("HYV4", {**HY_V4, "num_hidden_layers": 4, "indexer_types": ["full", "full", "shared", "full"]}),
    "deepseek_v4": ("DeepseekV4", DEEPSEEK_V4),
    "deepseek_v32": ("DeepseekV32", {**LLAMA, **LATENT, **GROUPS, **INDEXED}),
    "nemotron_h": ("NemotronH", {**LAYERED, "moe_latent_size": 16}),
    "minimax": (
        "MiniMax",
        {
            **LLAMA,
            **MINIMAX_FACTORS,
            "head_dim": 10,
            "num_hidden_layers": 4,
            "num_local_experts": 4,
            "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
            "block_size": 16,
        },
    ),
    "falcon_h1": ("FalconH1", {**LLAMA, **FALCON_H1, "head_dim": 16}),
    "mimo_v2_flash": (
        "MiMoV2Flash",
        {**LLAMA, **MIMO, "num_hidden_layers": 7, "attention_bias": True, "routed_scaling_factor": 1.5},
    ),
    "biogpt": ("BioGpt", {**MHA, "num_hidden_layers": 2}),
    "codegen": ("CodeGen", {**GPT2, "n_head": 8, "rotary_dim": 4}),
    "hyperclovax": ("HyperCLOVAX", {**LLAMA, **GRANITE, "pad_token_id": 0}),
    "aria_text": (
        "AriaText",
        {**LLAMA, "moe_num_experts": 5, "moe_topk": 3, "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"},
    ),
    "emu3": ("Emu3Text", {**LLAMA, "pad_token_id": 0, "attention_bias": True}),
    "gpt_neox_japanese": ("GPTNeoXJapanese", {**NEOX_JAPANESE, "layer_norm_eps": 1e-4}),
    "openai_gpt": ("OpenAIGPT", {**GPT2, "layer_norm_epsilon": 1e-4}),
    "ctrl": ("CTRL", {**GPT2, "dff": 80, "layer_norm_epsilon": 1e-4}),
    "xglm": ("XGLM", XGLM),
    "cohere_compass": (
        "CohereCompassText",
        {
            **NO_EPS,
            "num_hidden_layers": 4,
            "sliding_window": 6,
            "logit_scale": 0.25,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 5e3}, "full_attention": None},
        },
    ),
    "dots3_note": (
        "Dots3NoteText",
        {
            **LLAMA,
            **LATENT,
            **GROUPS,
            **INDEXED,
            "num_hidden_layers": 4,
            "head_dim": 18,
            "shared_experts_intermediate_size": 20,
            "pad_token_id": 0,
            "sliding_window": 6,
            **{f"swa_{key}": value for key, value in SMALL_WINDOWS.items()},
        },
    ),
    "mamba2": ("Mamba2", {**PURE_MAMBA, "head_dim": 12, "num_heads": 8}),
    "mamba": ("Mamba", MAMBA1),
    "falcon_mamba": ("FalconMamba", {**MAMBA1, "mixer_rms_eps": 1e-3}),
    "jamba": ("Jamba", {**LLAMA, **JAMBA}),
    "recurrent_gemma": ("RecurrentGemma", GRIFFIN),
    "xlstm": ("xLSTM", XLSTM),
    "rwkv": ("Rwkv", RWKV),
    "bitnet": ("BitNet", LLAMA),
    "jetmoe": ("JetMoe", JETMOE),
    "axk2": ("AXK2", {**LLAMA, **LATENT, **INDEXED, "gated_norm_rank": 5, "rms_norm_eps": 1e-4}),
    "zamba": ("Zamba", ZAMBA),
    "zamba2": ("Zamba2", ZAMBA2),
    "zaya": ("Zaya", ZAYA),
    "inkling_text": ("InklingText", INKLING),
    "inkling2_text": ("Inkling2Text", INKLING2),
    "beam": ("Beam", BEAM),
    "modernbert_decoder": ("ModernBertDecoder", MODERNBERT),
    "diffllama": ("DiffLlama", {**LLAMA, "num_attention_heads": 8, "num_key_value_heads": 4}),
    "longcat_flash": ("LongcatFlash", LONGCAT),
    "kimi_linear": ("KimiLinear", {**LLAMA, **HYBRID_LATENT, "linear_head_dim": 12, "linear_num_heads": 3}),
}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama4-no-experts": (
        "Llama4Text",
        {**LLAMA, **LLAMA4, "moe_layers": [], "num_local_experts": 0, "num_experts_per_tok": 0},
    ),
    "longcat_flash-yarn": (
        "LongcatFlash",
        {**LONGCAT, "zero_expert_num": 0, "attention_bias": True, "rope_parameters": {**SHARP, **ROPE}},
    ),
    "axk2-groups": (
        "AXK2",
        {
            **LLAMA,
            **LATENT,
            **GROUPS,
            **INDEXED,
            "n_shared_experts": 2,
            "attention_bias": True,
            "norm_topk_prob": False,
            "gated_norm_rank": 7,
            "mlp_layer_types": ["sparse", "dense", "sparse"],
            "rope_parameters": {**SHARP, **ROPE},
        },
    ),
    "beam-turned": (
        "Beam",
        {
            **BEAM,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
            "num_hidden_layers": 4,
            "mlp_layer_types": ["sparse", "dense", "sparse", "sparse"],
            "norm_topk_prob": False,
            "final_logit_softcapping": None,
            "tie_word_embeddings": True,
            "hidden_act": "gelu",
            "rope_parameters": {"full_attention": {**YARN, **ROPE}, "sliding_attention": None},
        },
    ),
    "inkling_text-scaled": (
        "InklingText",
        {
            **INKLING,
            "num_key_value_heads": 1,
            "conv_kernel_size": 3,
            "log_scaling_n_floor": 7,
            "log_scaling_alpha": 0.4,
            "layer_types": ["hybrid", "hybrid_sliding", "hybrid"],
            "mlp_layer_types": ["sparse", "dense", "dense"],
            "n_shared_experts": 1,
            "num_experts_per_tok": 3,
            "route_scale": 2.5,
            "hidden_act": "gelu",
            "rms_norm_eps": 1e-3,
            "rel_extent": 50,
            "unpadded_vocab_size": VOCAB - 7,
        },
    ),
    "inkling2_text-scaled": (
        "Inkling2Text",
        {
            **INKLING2,
            "num_key_value_heads": 1,
            "conv_kernel_size": 3,
            "log_scaling_n_floor": 7,
            "log_scaling_alpha": 0.4,
            "num_hidden_layers": 4,
            "layer_types": ["hybrid", "hybrid", "hybrid_sliding", "hybrid"],
            "n_layers_per_attn_res_block": 3,
            "num_experts_per_tok": 3,
            "route_scale": 2.5,
            "rms_norm_eps": 1e-3,
            "rel_extent": 50,
            "final_logit_softcapping": 5.0,
            "unpadded_vocab_size": VOCAB - 7,
        },
    ),
    "zaya-sliding": (
        "Zaya",
        {
            **ZAYA,
            "num_attention_heads": 5,
            "num_key_value_heads": 1,
            "cca_time0": 3,
            "cca_time1": 1,
            "sliding_window": 6,
            "layer_types": ["hybrid_sliding", "hybrid", "hybrid_sliding"],
            "rope_parameters": {
                "hybrid": {**YARN, **ROPE, "partial_rotary_factor": 0.5},
                "hybrid_sliding": {"rope_type": "default", "rope_theta": 300.0},
            },
            "lm_head_bias": True,
            "tie_word_embeddings": False,
            "hidden_act": "gelu",
            "rms_norm_eps": 1e-3,
        },
    ),
    "zamba-single": (
        "Zamba",
        {
            **ZAMBA,
            "num_hidden_layers": 8,
            "layers_block_type": None,
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "num_key_value_heads": 2,
            "attention_head_dim": 10,
            "n_mamba_heads": 1,
            "mamba_dt_rank": "auto",
            "mamba_d_conv": 3,
            "mamba_expand": 3,
            "mamba_conv_bias": False,
            "mamba_proj_bias": True,
            "hidden_mamba_act": "gelu",
            "hidden_act": "silu",
            "rms_norm_eps": 1e-3,
        },
    ),
    "zamba2-plain": (
        "Zamba2",
        {
            **ZAMBA2,
            "num_mem_blocks": 1,
            "use_shared_attention_adapter": False,
            "use_mem_rope": False,
            "attention_head_dim": 10,
            "num_key_value_heads": 2,
            "add_bias_linear": True,
            "mamba_ngroups": 1,
            "time_step_min": 0.3,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-3,
        },
    ),
    "jetmoe-untied": (
        "JetMoe",
        {
            **JETMOE,
            "num_local_experts": 5,
            "num_experts_per_tok": 3,
            "activation_function": "gelu",
            "rms_norm_eps": 1e-3,
            "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 300.0},
        },
    ),
    "modernbert_decoder-biased": (
        "ModernBertDecoder",
        {
            **MODERNBERT,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "classifier_bias": True,
            "decoder_bias": False,
            "tie_word_embeddings": False,
            "hidden_activation": "silu",
            "classifier_activation": "relu",
            "norm_eps": 1e-3,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
            },
        },
    ),
    "diffllama-biased": (
        "DiffLlama",
        {
            **{key: value for key, value in LLAMA.items() if key != "num_key_value_heads"},
            "head_dim": 12,
            "attention_bias": True,
            "tie_word_embeddings": True,
            "hidden_act": "gelu",
            "rms_norm_eps": 1e-3,
            "rope_scaling": LLAMA3,
        },
    ),
    "bitnet-biased": (
        "BitNet",
        {**LLAMA, "attention_bias": True, "tie_word_embeddings": True, "hidden_act": "silu", "rope_scaling": LLAMA3},
    ),
    "rwkv-sizes": (
        "Rwkv",
        {**RWKV, "attention_hidden_size": 36, "rescale_every": 0, "tie_word_embeddings": True},
    ),
    "xlstm-sizes": (
        "xLSTM",
        {**XLSTM, "v_dim_factor": 0.75, "ffn_round_up_to_multiple_of": 8, "num_heads": 4, "eps": 1e-3},
    ),
    "hyperclovax-prenorm": ("HyperCLOVAX", {**LLAMA, "use_post_norm": False, "logits_scaling": 0.5, "mlp_bias": True}),
    "gpt_neox_japanese-rotary": (
        "GPTNeoXJapanese",
        {**NEOX_JAPANESE, "rotary_pct": 0.5, "rotary_emb_base": 5000, "tie_word_embeddings": False},
    ),
    "openai_gpt-relu": ("OpenAIGPT", {**GPT2, "afn": "relu", "tie_word_embeddings": False}),
    "xglm-unscaled": (
        "XGLM",
        {**XGLM, "scale_embedding": False, "activation_function": "relu", "tie_word_embeddings": False},
    ),
    "cohere_compass-full": (
        "CohereCompassText",
        {**NO_EPS, "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e3}}},
    ),
    "mamba-biased": (
        "Mamba",
        {
            **MAMBA1,
            "expand": 3,
            "use_bias": True,
            "use_conv_bias": False,
            "hidden_act": "gelu",
            "tie_word_embeddings": False,
        },
    ),
    "falcon_mamba-wide": (
        "FalconMamba",
        {**MAMBA1, "expand": 16, "intermediate_size": 100, "time_step_rank": "auto", "tie_word_embeddings": False},
    ),
    "jamba-dense": (
        "Jamba",
        {
            **LLAMA,
            **JAMBA,
            "num_experts": 1,
            "mamba_proj_bias": True,
            "mamba_conv_bias": False,
            "mamba_expand": 1,
            "tie_word_embeddings": True,
        },
    ),
    "recurrent_gemma-biased": (
        "RecurrentGemma",
        {
            **GRIFFIN,
            "lru_width": None,
            "conv1d_width": 2,
            "attention_bias": True,
            "block_types": ["attention", "recurrent"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e3, "partial_rotary_factor": 0.25},
        },
    ),
    "minimax-window": ("MiniMax", {**LLAMA, "num_local_experts": 4, "sliding_window": 6, "num_hidden_layers": 4}),
    "mimo_v2_flash-groups": (
        "MiMoV2Flash",
        {
            **LLAMA,
            **MIMO,
            "attention_value_scale": None,
            "n_routed_experts": 8,
            "n_group": 4,
            "topk_group": 2,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "mlp_layer_types": ["sparse", "dense", "sparse"],
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 7e4, "partial_rotary_factor": 1.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e3, "partial_rotary_factor": 0.5},
            },
        },
    ),
    "mamba2-limited": (
        "Mamba2",
        {
            **PURE_MAMBA,
            "head_dim": 16,
            "num_heads": 9,
            "expand": 3,
            "n_groups": 3,
            "use_bias": True,
            "use_conv_bias": False,
            "time_step_limit": [0.2, 1.5],
            "tie_word_embeddings": True,
        },
    ),
    "falcon_h1-norm": (
        "FalconH1",
        {
            **LLAMA,
            **FALCON_H1,
            "mamba_rms_norm": True,
            "mamba_norm_before_gate": False,
            "mamba_conv_bias": False,
            "mamba_proj_bias": True,
            "projectors_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "time_step_limit": [0.2, 1.5],
            "tie_word_embeddings": True,
        },
    ),
    "falcon_h1-before": (
        "FalconH1",
        {**LLAMA, **FALCON_H1, "mamba_d_ssm": None, "mamba_d_head": 24, "mamba_rms_norm": True},
    ),
    "gemma4-tied": (
        "Gemma4Text",
        {
            **LLAMA,
            **GEMMA4,
            "hidden_size_per_layer_input": 0,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "attention_bias": True,
        },
    ),
    "gemma4-experts": ("Gemma4Text", {**LLAMA, **GEMMA4, **GEMMA4_EXPERTS, "hidden_size_per_layer_input": 0}),
    "gemma4-experts-layered": (
        "Gemma4Text",
        {**LLAMA, **GEMMA4, **GEMMA4_EXPERTS, "num_kv_shared_layers": 3, "use_double_wide_mlp": True},
    ),
    "axk1": ("AXK1", {**LLAMA, **LATENT, **GROUPS, "mlp_layer_types": ["sparse", "dense", "sparse"]}),
    "kolibri1": (
        "Kolibri1",
        {
            **LLAMA,
            **EXPERTS,
            "shared_expert_intermediate_size": 20,
            "head_dim": 16,
            "num_hidden_layers": 5,
            "sliding_window": 6,
        },
    ),
    "laguna": (
        "Laguna",
        {
            **LLAMA,
            **EXPERTS,
            **SHARED,
            "head_dim": 16,
            "sliding_window": 6,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "num_attention_heads_per_layer": [6, 4, 2],
            "attention_bias": True,
            "moe_routed_scaling_factor": 2.5,
        },
    ),
    "deepseek_v32-yarn": ("DeepseekV32", {**LLAMA, **LATENT, **GROUPS, **INDEXED, "rope_parameters": {**SHARP, **ROPE}}),
    "glm_moe_dsa": ("GlmMoeDsa", {**LLAMA, **LATENT, **INDEXED, "indexer_types": ["full", "shared", "full"]}),
    "nemotron_h-groups": (
        "NemotronH",
        {**LAYERED, "n_group": 4, "topk_group": 2, "use_bias": True, "use_conv_bias": False, "time_step_min": 0.3},
    ),
    "nemotron_h-dense": (
        "NemotronH",
        {**LAYERED, "layers_block_type": ["linear_attention", "mlp", "full_attention", "mlp"], "mlp_bias": True},
    ),
    "kimi_linear-rank": (
        "KimiLinear",
        {
            **LLAMA,
            **HYBRID_LATENT,
            "linear_head_dim": 8,
            "linear_num_heads": 5,
            "q_lora_rank": 20,
            "linear_conv_kernel_dim": 3,
        },
    ),
    "bailing_hybrid": ("BailingHybrid", {**LLAMA, **HYBRID_LATENT, "n_group": 4, "topk_group": 2, "head_dim": 8}),
    "bailing_hybrid-softplus": (
        "BailingHybrid",
        {**LLAMA, **HYBRID_LATENT, "n_group": 2, "topk_group": 1, "head_dim": 12, "kda_safe_gate": False, "rope_theta": 5e3},
    ),
    "exaone4-full": ("Exaone4", {**LLAMA, "sliding_window": None, "layer_types": ["full_attention"] * 3}),
    "ernie4_5_moe-some": (
        "Ernie4_5_Moe",
        {**LLAMA, **ERNIE, "num_hidden_layers": 5, "moe_layer_interval": 2, "moe_layer_end_index": 3, "use_bias": True},
    ),
    "qwen2_moe-some": ("Qwen2Moe", {**LLAMA, **EXPERTS, **SHARED, "qkv_bias": False, "mlp_only_layers": [1]}),
    "ministral3-window": ("Ministral3", {**LLAMA, "sliding_window": 7, "rope_parameters": TEMPERED}),
    "hunyuan_v1_dense-alpha": (
        "HunYuanDenseV1",
        {**LLAMA, "head_dim": 16, "rope_scaling": {"type": "dynamic", "factor": 1.0, "alpha": 100.0}},
    ),
    "olmo_hybrid-rope": (
        "OlmoHybrid",
        {
            **LLAMA,
            **LINEAR_HYBRID,
            **ROPE,
            "linear_key_head_dim": 8,
            "linear_num_key_heads": 3,
            "linear_allow_neg_eigval": False,
            "pad_token_id": 0,
        },
    ),
    "cohere2_moe-dense": (
        "Cohere2Moe",
        {
            **NO_EPS,
            "num_hidden_layers": 5,
            "sliding_window": 6,
            "num_experts": 4,
            "rms_norm_eps": 1e-4,
            "first_k_dense_replace": 2,
            "prefix_dense_intermediate_size": 56,
            "expert_selection_fn": "sigmoid",
        },
    ),
    "mistral4-sharp": (
        "Mistral4",
        {
            **LLAMA,
            **LATENT,
            "n_shared_experts": 2,
            "q_lora_rank": None,
            "rope_interleave": False,
            "rope_parameters": {**TEMPERED, "mscale": 1.0, "mscale_all_dim": 0.9},
        },
    ),
    "lfm3-plain": (
        "Lfm3",
        {
            **LFM3,
            "use_sandwich_norm": False,
            "use_attention_gate": False,
            "attention_bias": True,
            "conv_bias": True,
            "conv_L_cache": 3,
            "tie_word_embeddings": False,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 900.0},
            },
        },
    ),
    "minimax_m3-local": (
        "MiniMaxM3VLText",
        {
            **MINIMAX_M3,
            "index_n_heads": 3,
            "index_head_dim": 14,
            "index_block_size": 3,
            "index_local_blocks": 2,
            "swiglu_alpha": 1.3,
            "routed_scaling_factor": 1.4,
            "tie_word_embeddings": True,
        },
    ),
    "deepseek_v4-yarn": (
        "DeepseekV4",
        {
            **DEEPSEEK_V4,
            "layer_types": ["compressed_sparse_attention", "sliding_attention"] * 2 + ["compressed_sparse_attention"],
            "mlp_layer_types": ["moe", "hash_moe", "moe", "moe", "hash_moe"],
            "scoring_func": "sigmoid",
            "routed_scaling_factor": 2.5,
            "rope_scaling": YARN,
        },
    ),
    "hy_v4-groups": (
        "HYV4",
        {
            **HY_V4,
            **GROUPS,
            "n_shared_experts": 2,
            "attention_bias": True,
            "hc_magnitude": 1.3,
            "norm_topk_prob": False,
            "mlp_layer_types": ["sparse", "dense", "sparse"],
            "rope_parameters": {**SHARP, **ROPE},
        },
    ),
    "hrm_text-biases": (
        "HrmText",
        {
            **{key: value for key, value in LLAMA.items() if key != "num_key_value_heads"},
            "num_hidden_layers": 2,
            "H_cycles": 3,
            "L_cycles": 2,
            "L_bp_cycles": [2, 1],
            "embedding_scale": 4.0,
            "attention_bias": True,
            "mlp_bias": True,
            "head_dim": 8,
            "tie_word_embeddings": True,
        },
    ),
    "lfm2-bias": ("Lfm2", {**LFM2, "conv_bias": True, "conv_L_cache": 4, "block_auto_adjust_ff_dim": False}),
}
"""Further models of these families, which only the slow tests compare."""
MODELS = Models(MODELS | VARIANTS)
