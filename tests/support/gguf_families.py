"""Configurations of tiny models of the families that GGUF has an architecture for."""

from __future__ import annotations

from typing import Any

import pytest

from gptkit.interop.conversion import families, read_model
from gptkit.kinds.family import FamilySpec

__all__ = ["CONFIGS", "NAMES", "TRAINED", "architecture_of", "family_of", "model_of", "tolerance_of", "wide_model_of"]

ROWS = 257
LLAMA: dict[str, Any] = {
    "vocab_size": ROWS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rope_theta": 5000.0,
    "tie_word_embeddings": False,
}
NO_BIAS = {"attention_bias": False}
PLAIN = {key: value for key, value in LLAMA.items() if key not in ("num_key_value_heads", "rope_theta")}
GPT2 = {"vocab_size": ROWS, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64, "n_inner": 96}
BLOOM = {"vocab_size": ROWS, "hidden_size": 96, "seq_length": 64, "n_layer": 3, "num_hidden_layers": 3}
CONVOLUTIONS = {**LLAMA, "num_hidden_layers": 4, "layer_types": ["conv", "full_attention", "conv", "conv"]}
GEMMA = {**LLAMA, "head_dim": 32, "tie_word_embeddings": True, "num_hidden_layers": 4}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}
FACTORS = {
    "embedding_multiplier": 6.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.5,
    "logits_scaling": 4.0,
}
GRANITE = {**LLAMA, **FACTORS, "num_local_experts": 4, "num_experts_per_tok": 2}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "head_dim": 32,
    "num_hidden_layers": 5,
    "partial_rotary_factor": 0.25,
}
SHARED = {"shared_expert_intermediate_size": 48}
ROUTED = {
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 3,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
}
LATENT = {
    **{key: value for key, value in LLAMA.items() if key != "num_key_value_heads"},
    **ROUTED,
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
}
FALCON = {
    "vocab_size": ROWS,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", LLAMA),
    "qwen2": ("qwen2", LLAMA),
    "qwen3": ("qwen3", {**LLAMA, "head_dim": 32}),
    "gpt2": ("gpt2", GPT2),
    "gemma": ("gemma", GEMMA),
    "gemma2": ("gemma2", {**GEMMA, "sliding_window": 9, "query_pre_attn_scalar": 32}),
    "gemma3": (
        "gemma3_text",
        {**GEMMA, "sliding_window": 9, "query_pre_attn_scalar": 32, "num_hidden_layers": 7, "rope_theta": 50000.0},
    ),
    "mistral3": (
        "ministral3",
        {
            **LLAMA,
            "head_dim": 16,
            "sliding_window": None,
            "rope_parameters": {
                **YARN,
                "rope_theta": 5000.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.1,
            },
        },
    ),
    "phi3": ("phi3", {**LLAMA, "partial_rotary_factor": 0.5, "sliding_window": None}),
    "olmo2": ("olmo2", LLAMA),
    "olmo2-windows": (
        "olmo3",
        # Another base than this one concerns full layers alone.
        {**LLAMA, "sliding_window": 9, "num_hidden_layers": 5, "num_key_value_heads": 4, "rope_theta": 500000.0},
    ),
    "arcee": ("arcee", {**LLAMA, "head_dim": 32}),
    "seed_oss": ("seed_oss", {**LLAMA, "head_dim": 32}),
    "ernie4_5": ("ernie4_5", {**LLAMA, "head_dim": 32}),
    "hunyuan-dense": ("hunyuan_v1_dense", {**LLAMA, "head_dim": 32}),
    "chatglm": ("glm", {**LLAMA, "head_dim": 16}),
    "exaone4": ("exaone4", {**LLAMA, "sliding_window": None}),
    "exaone4-windows": ("exaone4", {**LLAMA, "sliding_window": 9, "num_hidden_layers": 64}),
    "glm4": ("glm4", {**LLAMA, "head_dim": 16, "attention_bias": True}),
    "granite": ("granite", {**LLAMA, **FACTORS}),
    "smollm3": ("smollm3", {**LLAMA, "num_hidden_layers": 5}),
    "command-r": (
        "cohere",
        {**LLAMA, "tie_word_embeddings": True, "logit_scale": 0.25},
    ),
    "command-r-plus": (
        "cohere",
        {**LLAMA, "tie_word_embeddings": True, "logit_scale": 0.25, "use_qk_norm": True, "num_hidden_layers": 64},
    ),
    "cohere2": (
        "cohere2",
        {**LLAMA, "tie_word_embeddings": True, "logit_scale": 0.25, "sliding_window": 9, "num_hidden_layers": 5},
    ),
    "starcoder2": ("starcoder2", {**LLAMA, "sliding_window": None}),
    "gptneox": ("gpt_neox", {**PLAIN, "rotary_pct": 0.5, "use_parallel_residual": True}),
    "gptneox-sequential": ("gpt_neox", {**PLAIN, "use_parallel_residual": False}),
    "phi2": ("phi", {**LLAMA, "partial_rotary_factor": 0.5}),
    "stablelm": ("stablelm", {**LLAMA, "use_qkv_bias": True}),
    "stablelm-parallel": ("stablelm", {**LLAMA, "qk_layernorm": True, "use_parallel_residual": True}),
    "olmo": ("olmo", {**LLAMA, "clip_qkv": 1.5}),
    "bloom": ("bloom", {**BLOOM, **dict.fromkeys(("n_head", "num_attention_heads"), 6)}),
    "starcoder": ("gpt_bigcode", GPT2),
    "starcoder-separate": ("gpt_bigcode", {**GPT2, "multi_query": False, "tie_word_embeddings": False}),
    "nemotron": ("nemotron", {**LLAMA, "mlp_bias": True}),
    "nemotron-biased": ("nemotron", {**LLAMA, "attention_bias": True}),
    "jais2": ("jais2", {**LLAMA, "head_dim": 32}),
    "falcon-7b": ("falcon", FALCON),
    "falcon-40b": ("falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "mpt": (
        "mpt",
        {
            "vocab_size": ROWS,
            "d_model": 96,
            "n_layers": 3,
            "n_heads": 6,
            "max_seq_len": 64,
            "attn_config": {"clip_qkv": 1.5},
        },
    ),
    "mixtral": ("mixtral", {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "gpt-oss": (
        "gpt_oss",
        {
            **LLAMA,
            "head_dim": 32,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "intermediate_size": 32,
            "sliding_window": 9,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
        },
    ),
    "olmoe": (
        "olmoe",
        {**LLAMA, "num_key_value_heads": 4, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    "granitemoe": ("granitemoe", GRANITE),
    "granitemoe-shared": ("granitemoeshared", {**GRANITE, "shared_intermediate_size": 48}),
    "dots1": (
        "dots1",
        {**LLAMA, **ROUTED, "num_key_value_heads": 4, "n_shared_experts": 2, "norm_topk_prob": True, "sliding_window": None},
    ),
    "ernie4_5-moe": (
        "ernie4_5_moe",
        {
            **LLAMA,
            "num_hidden_layers": 5,
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 32,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 2,
        },
    ),
    "hunyuan-moe": (
        "hunyuan_v1_moe",
        {**LLAMA, "head_dim": 32, "num_experts": 4, "moe_topk": 2, "moe_intermediate_size": 96},
    ),
    "minimax-m2": (
        "minimax_m2",
        {**LLAMA, "head_dim": 32, "rotary_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "dbrx": (
        "dbrx",
        {
            "vocab_size": ROWS,
            "d_model": 64,
            "n_layers": 3,
            "n_heads": 4,
            "max_seq_len": 64,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 0.5, "rope_theta": 5000.0},
            "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
        },
    ),
    "qwen2moe": ("qwen2_moe", {**LLAMA, **EXPERTS, **SHARED, "norm_topk_prob": False}),
    "qwen3moe": ("qwen3_moe", {**LLAMA, **EXPERTS, "head_dim": 32}),
    "qwen3next": ("qwen3_next", {**LLAMA, **EXPERTS, **SHARED, **LINEAR}),
    "qwen35": ("qwen3_5_text", {**LLAMA, **LINEAR}),
    "qwen35moe": (
        "qwen3_5_moe_text",
        {**LLAMA, **{key: EXPERTS[key] for key in EXPERTS if key != "norm_topk_prob"}, **SHARED, **LINEAR},
    ),
    "mamba2": (
        "mamba2",
        {
            "vocab_size": ROWS,
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_heads": 8,
            "head_dim": 16,
            "n_groups": 2,
            "state_size": 16,
        },
    ),
    "lfm2": ("lfm2", {**CONVOLUTIONS, "block_auto_adjust_ff_dim": False}),
    "lfm2moe": (
        "lfm2_moe",
        {**CONVOLUTIONS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "num_dense_layers": 1},
    ),
    "glm4moe": ("glm4_moe", {**LLAMA, **ROUTED, "head_dim": 16, "attention_bias": True, "use_qk_norm": True}),
    "deepseek2": ("deepseek_v2", LATENT),
    # llama.cpp recognizes models without a latent of queries by their number of layers.
    "deepseek2-lite": ("deepseek_v2", {**LATENT, "q_lora_rank": None, "num_hidden_layers": 26}),
    "deepseek3": ("deepseek_v3", {**LATENT, "n_group": 4, "topk_group": 2, "norm_topk_prob": True}),
}
"""The `model_type` and the other keys of config.json, by a name that begins with that of the architecture."""


FAST = ("gemma3", "gpt-oss", "qwen35", "deepseek2")
"""Names of models that every test run checks; the slow tests check all."""
NAMES = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS]
"""All names, as parameters of a test."""
DEEP = ("exaone4-windows", "command-r-plus", "deepseek2-lite")
"""Models that llama.cpp recognizes by their 26 or 64 layers."""
TRAINED = [
    "gemma3",
    *(
        pytest.param(name, marks=pytest.mark.nightly if name in DEEP or number % 6 else pytest.mark.slow)
        for number, name in enumerate(CONFIGS)
        if name != "gemma3"
    ),
]
"""All names, for a test that trains each model, which takes seconds, and minutes for deep ones: a sixth of them slow."""


def architecture_of(name: str) -> str:
    """Return the value of `general.architecture` of a model in `CONFIGS`."""
    if name.startswith("command-r"):
        return "command-r"
    known = {"mixtral": "llama", "deepseek3": "deepseek2"}
    whole = ("gpt-oss", "hunyuan-dense", "hunyuan-moe", "minimax-m2", "ernie4_5-moe")
    return name if name in whole else known.get(name, name.split("-")[0])


def tolerance_of(name: str) -> float:
    """Return the tolerance of log-probabilities of llama.cpp, which computes GELU from a table in fp16."""
    gelu = ("gpt2", "falcon", "mpt", "gemma", "starcoder", "gptneox", "phi2", "bloom")
    return 8e-3 if name.startswith(gelu) else 2e-4


def family_of(name: str) -> FamilySpec:
    """Return the family of a model in `CONFIGS`."""
    return next(each for each in families().values() if each.model_type == CONFIGS[name][0])


def model_of(name: str) -> dict[str, Any]:
    """Return the model of a configuration in `CONFIGS`, as plain data."""
    model_type, config = CONFIGS[name]
    return read_model(family_of(name), {"model_type": model_type, **config}).model_dump(mode="json")


def wide_model_of(name: str) -> dict[str, Any]:
    """Return the model of a configuration in `CONFIGS` with matrices whose rows are whole blocks of k-quants."""
    model_type, config = CONFIGS[name]
    wide = {key: 256 if key in _WIDTHS else value for key, value in config.items()}
    if config.get("head_dim", 0) * config.get("num_attention_heads", 0) == config.get("hidden_size"):
        wide["head_dim"] = 256 // config["num_attention_heads"]
    if "num_heads" in wide:
        wide["num_heads"] *= 4  # Mamba-2: the heads have twice the width.
    # MPT and BLOOM: 6 do not divide the width.
    wide |= {key: 8 for key in ("n_heads", "n_head", "num_attention_heads") if wide.get(key) == 6}
    return read_model(family_of(name), {"model_type": model_type, **wide}).model_dump(mode="json")


_WIDTHS = frozenset(
    [
        "hidden_size",
        "d_model",
        "n_embd",
        "n_inner",
        "intermediate_size",
        "moe_intermediate_size",
        "shared_expert_intermediate_size",
    ]
)
