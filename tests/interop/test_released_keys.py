"""Released configurations with keys without effect are read.

The keys are those of files on the Hugging Face hub. Where another value would change the model, it is refused.
"""

from __future__ import annotations

from typing import Any

import pytest

from gptkit.core.errors import ExternalModelError
from gptkit.interop.conversion import families, find_family, read_model
from tests.support.tiny_models import MODELS

transformers = pytest.importorskip("transformers")

KEYS: dict[str, dict[str, Any]] = {
    "inkling_text": {
        "use_sconv": True,
        "use_embed_norm": True,
        "use_gate_bias": True,
        "use_global_scale": True,
        "q_bias": False,
        "norm_after_topk": True,
        "gate_activation": "sigmoid",
        "o_bias": False,
        "final_logit_softcapping": None,
        "layer_types": None,
        "local_layer_ids": [0, 1],
        "mlp_layer_types": None,
        "dense_mlp_idx": 2,
        "conv_kernel_size": None,
        "sconv_kernel_size": 4,
        "max_position_embeddings": None,
        "model_max_length": 1048576,
        "dense_intermediate_size": 96,
        "unpadded_vocab_size": 290,
        "num_mtp_layers": 8,
        "mtp_local_layer_ids": [0, 2],
    },
    "zaya": {
        "rope_parameters": {"hybrid": {"rope_theta": 1e4}, "hybrid_sliding": {"rope_theta": 1e4}, "rope_type": "default"}
    },
    "zamba": {"attn_layer_period": 6, "attn_layer_offset": 4, "use_mamba_kernels": True, "attention_hidden_size": 96},
    "zamba2": {"use_shared_mlp_adapter": True, "mamba_headdim": 24, "kv_channels": 16, "hybrid_layer_ids": [1, 3, 4, 5]},
    "bloom": {
        "attention_softmax_in_fp32": True,
        "bias_dropout_fusion": True,
        "masked_softmax_fusion": True,
        "n_inner": None,
        "offset_alibi": 100,
        "pretraining_tp": 2,
        "seq_length": 2048,
        "skip_bias_add": True,
        "skip_bias_add_qkv": False,
        "unk_token_id": 0,
    },
    "cohere": {"model_max_length": 131072, "hidden_dropout": 0.0, "use_qk_norm": False},
    "cohere2": {
        "cache_implementation": "hybrid",
        "layer_switch": 4,
        "order_of_interleaved_layers": "local_attn_first",
        "position_embedding_type": "rope_gptj",
        "rotary_pct": 1.0,
        "use_embedding_sharing": True,
        "use_gated_activation": True,
        "use_parallel_block": True,
        "use_parallel_embedding": False,
    },
    "deepseek_v2": {
        "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV2Config"},
        "aux_loss_alpha": 0.001,
        "ep_size": 1,
        "moe_layer_freq": 1,
        "norm_topk_prob": False,
        "scoring_func": "softmax",
        "seq_aux": True,
    },
    "deepseek_v3": {
        "ep_size": 1,
        "moe_layer_freq": 1,
        "num_nextn_predict_layers": 1,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    },
    "axk2": {"layer_types": ["deepseek_sparse_attention"] * 3, "num_nextn_predict_layers": 1, "n_group": None},
    "falcon": {"ff_factor": 4, "apply_residual_connection_post_layernorm": False, "hidden_dropout": 0.0},
    "gemma": {"hidden_activation": None},
    "gemma2": {"sliding_window_size": 6, "cache_implementation": "hybrid"},
    "gemma3_text": {"cache_implementation": "hybrid", "attn_logit_softcapping": None},
    "glm4_moe": {"num_nextn_predict_layers": 1},
    "gpt2": {
        "_num_labels": 1,
        "n_special": 0,
        "output_past": True,
        "predict_special_tokens": True,
        "n_ctx": 1024,
        "summary_activation": None,
        "summary_type": "cls_index",
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    },
    "gpt_bigcode": {
        "attention_softmax_in_fp32": True,
        "inference_runner": 0,
        "max_batch_size": None,
        "pad_key_length": True,
        "pre_allocate_kv_cache": False,
        "runner_max_sequence_length": None,
        "scale_attention_softmax_in_fp32": True,
        "validate_runner_input": True,
    },
    "gpt_neox": {
        "attention_probs_dropout_prob": 0,
        "hidden_dropout_prob": 0,
        "custom_pipelines": {"text-generation": {"impl": "x"}},
        "classifier_dropout": 0.1,
        "is_decoder": True,
    },
    "gpt_oss": {"experts_per_token": 4, "initial_context_length": 4096, "router_aux_loss_coef": 0.9},
    "gptj": {"gradient_checkpointing": False, "rotary": True, "summary_use_proj": True},
    "granite": {"rope_scaling": None},
    "granitemoe": {"rope_scaling": None, "router_aux_loss_coef": 0.0},
    "llama": {
        "max_sequence_length": 2048,
        "is_llama_config": True,
        "pretraining_tp": 1,
        "rope_interleaved": False,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    },
    "llama4_text": {"for_llm_compressor": False, "router_jitter_noise": 0.0},
    "mimo_v2_flash": {
        "add_full_attention_sink_bias": False,
        "add_swa_attention_sink_bias": True,
        "attention_chunk_size": 128,
        "hybrid_block_size": None,
        "hybrid_layer_pattern": [0, 1, 1, 1, 1, 0, 1],
        "layernorm_epsilon": 1e-5,
        "moe_layer_freq": [0, 1, 1, 1, 1, 1, 1],
        "n_shared_experts": None,
        "partial_rotary_factor": 0.334,
        "rope_theta": 5000000,
        "routed_scaling_factor": None,
        "scoring_func": "sigmoid",
        "swa_head_dim": 12,
        "swa_num_attention_heads": 8,
        "swa_num_key_value_heads": 4,
        "swa_rope_theta": 10000,
        "swa_v_head_dim": 6,
        "topk_method": "noaux_tc",
    },
    "mixtral": {"output_router_logits": False, "router_aux_loss_coef": 0.02},
    "mpt": {
        "fc_type": "torch",
        "ffn_config": {"ffn_type": "mptmlp"},
        "embedding_fraction": 1.0,
        "init_config": {"emb_init_std": None, "name": "kaiming_normal_"},
        "init_device": "cpu",
        "learned_pos_emb": True,
        "logit_scale": None,
        "norm_type": "low_precision_layernorm",
        "verbose": 0,
    },
    "opt": {
        "learned_embeddings": True,
        "scale_embeddings": False,
        "activation_dropout": 0.0,
        "init_std": 0.02,
        "layerdrop": 0.0,
        "prefix": "</s>",
    },
    "phi": {"embd_pdrop": 0.0, "layer_norm_eps": 1e-05, "resid_pdrop": 0.1},
    "phi3": {
        "attention_bias": False,
        "embd_layer": None,
        "full_attn_mod": 1,
        "interpolate_factor": 1,
        "lm_head_bias": False,
        "mlp_bias": False,
        "resid_pdrop": 0.0,
    },
    "phimoe": {"hidden_dropout": 0.0, "input_jitter_noise": 0.01},
    "qwen2": {"max_window_layers": 21, "sliding_window": 32768, "use_mrope": False, "use_sliding_window": False},
    "qwen3_moe": {
        "qkv_bias": False,
        "shared_expert_intermediate_size": 0,
        "use_qk_norm": True,
        "max_window_layers": 48,
        "mlp_only_layers": [],
    },
    "qwen3_next": {"full_attention_interval": 4, "mlp_only_layers": []},
    "smollm3": {"max_window_layers": 28, "use_sliding_window": False},
    "starcoder2": {
        "attention_softmax_in_fp32": True,
        "layer_norm_epsilon": 1e-5,
        "scale_attention_softmax_in_fp32": True,
        "scale_attn_weights": True,
        "activation_function": "gelu",
        "mlp_type": "default",
        "norm_type": "layer_norm",
    },
    "dots1": {"moe_layer_freq": 1, "scoring_func": "noaux_tc", "ep_size": 1},
    "falcon_h1": {
        "mlp_expansion_factor": 8,
        "time_step_floor": 0.0001,
        "time_step_max": 0.1,
        "time_step_min": 0.001,
        "time_step_rank": "auto",
    },
    "granitemoehybrid": {"init_method": "mup", "normalization_function": "rmsnorm"},
    "mamba2": {"time_step_init_scheme": "random", "time_step_scale": 1.0},
    "minimax_m2": {
        "layernorm_full_attention_alpha": 1.0,
        "layernorm_linear_attention_beta": 1.0,
        "layernorm_mlp_beta": 1.0,
        "mlp_intermediate_size": 8192,
    },
    "nemotron": {"kv_channels": 16, "num_query_groups": 2, "rope_percent": 0.5, "rope_percentage": 0.5},
    "nemotron_h": {
        "attention_head_dim": 10,
        "norm_eps": 1e-4,
        "partial_rotary_factor": 1.0,
        "rms_norm_eps": 1e-4,
        "rope_theta": 10000,
    },
    "qwen3_5_text": {
        "attn_output_gate": True,
        "mamba_ssm_dtype": "float32",
        "mlp_only_layers": [],
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
    },
    "qwen3_5_moe_text": {
        "norm_topk_prob": True,
        "partial_rotary_factor": 0.25,
        "attn_output_gate": True,
        "mamba_ssm_dtype": "float32",
        "mlp_only_layers": [],
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
    },
    "stablelm": {"norm_eps": 1e-5, "num_heads": 6, "rotary_scaling_factor": 1.0},
    "hunyuan_v1_moe": {
        "moe_topk": [2, 2, 2],
        "n_group": False,
        "norm_topk_prob": True,
        "routed_scaling_factor": False,
        "topk_group": False,
    },
    "bamba": {"attn_rotary_emb": 4, "num_logits_to_keep": 1},
    "glm4_moe_lite": {"moe_layer_freq": 1, "topk_method": "noaux_tc"},
}
OTHERS: dict[str, dict[str, Any]] = {
    "inkling_text": {"norm_after_topk": False},
    "zaya": {"num_experts_per_tok": 2},
    "axk2": {"layer_types": ["full_attention"] * 3},
    "zamba": {"attention_hidden_size": 48},
    "zamba2": {"use_shared_mlp_adapter": False},
    "beam": {"rope_parameters": {"full_attention": None}},
    "cohere2": {"position_embedding_type": "alibi"},
    "deepseek_v2": {"scoring_func": "sigmoid"},
    "deepseek_v3": {"topk_method": "greedy"},
    "gemma": {"use_bidirectional_attention": True},
    "gpt_bigcode": {"scale_attn_by_inverse_layer_idx": True},
    "llama": {"add_cross_attention": True},
    "mimo_v2_flash": {"hybrid_layer_pattern": [0, 1, 1, 0, 1, 0, 1]},
    "mpt": {"logit_scale": 0.5},
    "phi3": {"attention_bias": True},
    "qwen3_moe": {"use_sliding_window": True},
}


def read(model_type: str, changes: dict[str, Any]) -> None:
    family = next(each for each in families().values() if each.model_type == model_type)
    kind, options = next(
        (getattr(transformers, f"{name}Config"), options)
        for name, options in MODELS.values()
        if getattr(transformers, f"{name}Config").model_type == model_type
    )
    plain = {"torch_dtype": "bfloat16", "architectures": [family.architecture], "tokenizer_class": "PreTrainedTokenizerFast"}
    read_model(family, {**kind(**options).to_dict(), **plain, **changes})


@pytest.mark.parametrize("model_type", KEYS)
def test_keys_of_released_models_are_read(model_type: str) -> None:
    read(model_type, KEYS[model_type])


@pytest.mark.parametrize("model_type", OTHERS)
def test_values_that_change_the_model_are_not_ignored(model_type: str) -> None:
    with pytest.raises(ExternalModelError, match=f"{next(iter(OTHERS[model_type]))} is "):
        read(model_type, OTHERS[model_type])


@pytest.mark.parametrize(
    "change",
    [{"moe_layer_freq": [0] * 7}, {"swa_rope_theta": 5e6}, {"swa_head_dim": 24}, {"scoring_func": "softmax"}],
    ids=lambda change: next(iter(change)),
)
def test_keys_that_transformers_does_not_read_are_refused_with_other_values(change: dict[str, Any]) -> None:
    with pytest.raises(ExternalModelError, match=f"{next(iter(change))} is .*: transformers "):
        read("mimo_v2_flash", change)


@pytest.mark.parametrize(
    ("model_type", "change", "why"),
    [
        ("hunyuan_v1_moe", {"norm_topk_prob": False}, "transformers does not read it"),
        ("bamba", {"attn_rotary_emb": 8}, "transformers reads partial_rotary_factor, which rotates"),
        ("mpt", {"ffn_config": {"ffn_type": "mptglu"}}, "transformers does not read it"),
        ("dots1", {"scoring_func": "softmax"}, "transformers does not read it"),
        ("falcon", {"ff_factor": 8}, "transformers does not read it"),
        ("minimax_m2", {"layernorm_mlp_alpha": 3.5}, "transformers does not read it"),
        ("qwen3_5_text", {"attn_output_gate": False}, "transformers does not read it"),
        ("stablelm", {"rotary_scaling_factor": 2.0}, "transformers does not read it"),
        ("gemma2", {"sliding_window_size": 99}, "transformers reads sliding_window in this family, which is .*6"),
        ("nemotron", {"rope_percent": 0.25}, "transformers reads partial_rotary_factor in this family, which is .*0.5"),
        ("nemotron_h", {"rms_norm_eps": 1e-3}, "transformers reads layer_norm_epsilon in this family"),
        ("starcoder2", {"layer_norm_epsilon": 1e-3}, "transformers reads norm_epsilon in this family"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_other_values_of_keys_that_transformers_ignores_are_refused(
    model_type: str, change: dict[str, Any], why: str
) -> None:
    with pytest.raises(ExternalModelError, match=f"{next(iter(change))} is .*: {why}"):
        read(model_type, change)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "quantized.*import an unquantized copy"),
        ({"dual_chunk_attention_config": {"chunk_size": 32, "local_size": 8}}, "chunk_size - local_size tokens"),
    ],
    ids=["quantized", "chunked"],
)
def test_refused_keys_of_all_families_name_the_remedy(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ExternalModelError, match=f"{next(iter(change))} is .*{why}"):
        read("llama", change)


def test_yarn_has_keys_of_the_code_of_its_makers() -> None:
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    read("llama", {"rope_parameters": None, "rope_scaling": {**yarn, "finetuned": True, "attn_factor": 1}})
    with pytest.raises(ExternalModelError, match=r"attn_factor is .*: transformers does not read it"):
        read("llama", {"rope_parameters": None, "rope_scaling": {**yarn, "attn_factor": 1.5}})


def test_a_model_with_code_beside_its_weights_is_named_so() -> None:
    config = {"model_type": "baichuan", "auto_map": {"AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM"}}
    with pytest.raises(ExternalModelError, match="'baichuan'; its code is in files beside the weights"):
        find_family(config, "config.json")


def test_a_multimodal_model_of_another_type_is_named_with_its_language_model() -> None:
    config = {"model_type": "voxtral", "text_config": {"model_type": "llama"}, "audio_config": {}}
    with pytest.raises(
        ExternalModelError, match="'voxtral'; its language model is of the type 'llama', which is read from a"
    ):
        find_family(config, "config.json")


def test_kimi_k2_is_a_deepseek_v3_and_only_that_family_reads_it() -> None:
    assert find_family({"model_type": "kimi_k2"}, "config.json").name == "deepseek-v3"
    assert {find_family({"model_type": each}, "config.json").name for each in ("gemma3", "mistral3")} == {
        "gemma3",
        "mistral",
    }
