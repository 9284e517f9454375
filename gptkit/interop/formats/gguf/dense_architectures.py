"""The architectures of dense models that the built-in families have: their keys and tensors, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptkit.interop.formats.gguf.architecture import Architecture
from gptkit.interop.formats.gguf.metadata import Typed
from gptkit.interop.formats.gguf.parts import (
    DENSE,
    TIED,
    Fixed,
    HasTensor,
    HeadSize,
    Key,
    Keys,
    Periodic,
    Tied,
    Untrained,
    Windows,
)
from gptkit.interop.formats.gguf.rotary import LocalRotary, Rotary
from gptkit.interop.formats.gguf.rules import FUSED, FUSED_GATE, OFFSETS, TURNED, falcon, plain, with_rules

__all__ = ["COMMON", "DENSE_ARCHITECTURES", "EXPERTS", "GELU", "SIZES"]

GELU = "llama.cpp computes GELU by its approximation with tanh, and this model was defined with the exact function."
"""Remark on architectures whose family has the exact GELU."""

_RMS = Key("attention.layer_norm_rms_epsilon", "rms_norm_eps", "f32")
SIZES = (
    Key("context_length", "max_position_embeddings"),
    Key("embedding_length", "hidden_size"),
    Key("block_count", "num_hidden_layers"),
    Key("attention.head_count", "num_attention_heads"),
)
"""Keys that every architecture has."""
_KV = Key("attention.head_count_kv", "num_key_value_heads", default="attention.head_count")
_WIDTH = Key("feed_forward_length", "intermediate_size")
_SILU = Fixed({"hidden_act": "silu"})
COMMON = (Keys((*SIZES, _KV, _WIDTH, _RMS)), _SILU, Tied, DENSE)
"""Keys of the decoders with RMS norms and gated feed-forwards."""
EXPERTS = (Key("expert_count", "num_experts"), Key("expert_used_count", "num_experts_per_tok"))
_ATTENTION_BIAS = HasTensor("attention_bias", ("blk.0.attn_q.bias",))
_MLP_BIAS = HasTensor("mlp_bias", ("blk.0.ffn_up.bias",))
_WINDOW = "attention.sliding_window"


def _layer_norm(config: str) -> Key:
    return Key("attention.layer_norm_epsilon", config, "f32")


def _ignored_window(model: str) -> Untrained:
    """Return the part of an architecture whose attention window llama.cpp ignores."""
    return Untrained(
        lambda config: bool(config.get("sliding_window")) and config["sliding_window"] < config["max_position_embeddings"],
        f"llama.cpp computes {model} without its attention window, so the model would attend to more tokens there",
        lambda keys: {"sliding_window": keys.integer(_WINDOW, 0) or None},
    )


def _gemma(period: int, caps: bool) -> Sequence[Any]:
    """Return the parts of Gemma 2 and 3."""
    both = (
        Key("attn_logit_softcapping", "attn_logit_softcapping", "f32", 50.0),
        Key("final_logit_softcapping", "final_logit_softcapping", "f32", 30.0),
    )
    none = Fixed({"attn_logit_softcapping": None, "final_logit_softcapping": None})
    return (Keys(both) if caps else none, Windows(period), _GemmaScale())


class _GemmaScale:
    """Gemma's scale of scores, which llama.cpp derives from the number of layers: those of 27B differ."""

    layers = (46, 62)

    def read(self, keys: Any, tensors: Any) -> dict[str, Any]:
        width, n_heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
        d_head = keys.integer("attention.key_length", width // max(1, n_heads))
        large = keys.layers("block_count") in self.layers
        return {"query_pre_attn_scalar": width // max(1, n_heads) if large else d_head}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        return {}


_GEMMA = (
    Keys((*SIZES, _KV, _WIDTH, _RMS)),
    Fixed({"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}),
    DENSE,
    HeadSize(),
)


def _dense() -> tuple[Architecture, ...]:
    rotary, partial = Rotary(), Rotary(partial=True)
    turned = with_rules(*TURNED)
    llama = (*COMMON, HeadSize(), rotary, _ATTENTION_BIAS, _MLP_BIAS)
    scales = (
        Key("attention.scale", "attention_multiplier", "f32"),
        Key("embedding_scale", "embedding_multiplier", "f32"),
        Key("residual_scale", "residual_multiplier", "f32"),
        Key("logit_scale", "logits_scaling", "f32"),
    )
    parallel = (Keys((*SIZES, _KV, _WIDTH, _layer_norm("layer_norm_eps"))), _SILU, TIED, DENSE, HeadSize())
    gpt2 = (
        Key("context_length", "n_positions"),
        Key("embedding_length", "n_embd"),
        Key("block_count", "n_layer"),
        Key("attention.head_count", "n_head"),
        Key("feed_forward_length", "n_inner"),
        _layer_norm("layer_norm_epsilon"),
    )
    mpt = (
        Key("context_length", "max_seq_len"),
        Key("embedding_length", "d_model"),
        Key("block_count", "n_layers"),
        Key("attention.head_count", "n_heads"),
        _layer_norm("layer_norm_epsilon"),
        Key("attention.clamp_kqv", "attn_config.clip_qkv", "f32", optional=True),
    )
    return (
        Architecture("llama", "llama", llama, turned, lambda data: not data.get("llama.expert_count"), frequencies=True),
        Architecture("qwen2", "qwen2", (*COMMON, HeadSize(), rotary), plain),
        Architecture("qwen3", "qwen3", (*COMMON, HeadSize(128), Rotary(head=128), Fixed({"attention_bias": False})), plain),
        Architecture("gpt2", "gpt2", (Keys(gpt2), Fixed({"activation_function": "gelu_new"}), Tied), with_rules(*FUSED)),
        Architecture("gemma", "gemma", (*_GEMMA, TIED, Rotary(scalings=("linear",))), with_rules(*OFFSETS)),
        Architecture(
            "gemma2", "gemma2", (*_GEMMA, TIED, Rotary(scalings=("linear",)), *_gemma(2, caps=True)), with_rules(*OFFSETS)
        ),
        Architecture("gemma3", "gemma3_text", (*_GEMMA, Tied, LocalRotary(), *_gemma(6, caps=False)), with_rules(*OFFSETS)),
        Architecture(
            "mistral3",
            "ministral3",
            (
                *COMMON,
                HeadSize(128),
                Rotary(head=128, scalings=("yarn",), yarn={"mscale": 1.0, "mscale_all_dim": 1.0}),
                _Tempered(),
                Fixed({"sliding_window": None}),
            ),
            turned,
        ),
        Architecture(
            "phi3",
            "phi3",
            (*COMMON, HeadSize(), partial, _ignored_window("Phi 3")),
            with_rules(*FUSED, *FUSED_GATE),
        ),
        Architecture("olmo2", "olmo2", (*COMMON, HeadSize(), rotary, _ATTENTION_BIAS), plain),
        Architecture("glm4", "glm4", (*COMMON, HeadSize(), partial, _ATTENTION_BIAS), with_rules(*FUSED_GATE)),
        Architecture("granite", "granite", (*COMMON, HeadSize(), rotary, Keys(scales), _ATTENTION_BIAS, _MLP_BIAS), turned),
        Architecture(
            "smollm3",
            "smollm3",
            (*COMMON, HeadSize(), rotary, _ATTENTION_BIAS, _MLP_BIAS, Periodic("no_rope_layers", 1, 0, 4)),
            turned,
        ),
        Architecture(
            "command-r",
            "cohere",
            (
                *parallel,
                Rotary(scalings=()),
                Keys((Key("logit_scale", "logit_scale", "f32"),)),
                HasTensor("use_qk_norm", ("blk.0.attn_q_norm.weight",)),
                Fixed({"attention_bias": False}),
            ),
            plain,
        ),
        Architecture(
            "cohere2",
            "cohere2",
            (*parallel, Rotary(scalings=()), Keys((Key("logit_scale", "logit_scale", "f32"),)), Windows(4)),
            plain,
        ),
        Architecture(
            "starcoder2",
            "starcoder2",
            (
                Keys((*SIZES, _KV, _WIDTH, _layer_norm("norm_epsilon"))),
                Fixed({"hidden_act": "gelu_pytorch_tanh", "use_bias": True}),
                Tied,
                DENSE,
                HeadSize(),
                Rotary(),
                _ignored_window("StarCoder 2"),
            ),
            plain,
        ),
        Architecture(
            "falcon",
            "falcon",
            (
                Keys((*SIZES, Key("feed_forward_length", "ffn_hidden_size"), _layer_norm("layer_norm_epsilon"))),
                Fixed(
                    {"activation": "gelu", "bias": False, "alibi": False, "parallel_attn": True},
                    ignored=("tensor_data_layout",),
                ),
                Tied,
                DENSE,
                HeadSize(implied=True),
                Rotary(scalings=("linear",)),
                _FalconHeads(),
            ),
            falcon,
            remark=lambda config: GELU,
        ),
        Architecture(
            "mpt",
            "mpt",
            (
                Keys(mpt),
                Fixed(keys={"attention.max_alibi_bias": Typed("f32", 8.0)}, ignored=("feed_forward_length",)),
                _FourTimes(),
                Tied,
            ),
            with_rules(*FUSED),
            remark=lambda config: GELU,
        ),
    )


class _Tempered:
    """Ministral 3's queries, which grow with the logarithm of their position."""

    def read(self, keys: Any, tensors: Any) -> dict[str, Any]:
        # The last part that sets `rope_scaling` has the keys of YaRN too.
        rotary = Rotary(head=128, scalings=("yarn",), yarn={"mscale": 1.0, "mscale_all_dim": 1.0}).read(keys, tensors)
        keys.only("rope.scaling.yarn_log_multiplier", 1.0, why="YaRN must not change the amplitude in this architecture")
        tempered = {"llama_4_scaling_beta": keys.number("attention.temperature_scale", 0.0)}
        if "rope_scaling" in rotary:
            return {"rope_scaling": {**rotary["rope_scaling"], **tempered}}
        trained = {"original_max_position_embeddings": keys.integer("context_length")}
        return {"rope_parameters": {"rope_type": "default", "rope_theta": rotary["rope_theta"], **tempered, **trained}}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        beta = (config.get("rope_scaling") or {}).get("llama_4_scaling_beta")
        if beta is None:
            return {}
        return {
            "rope.scaling.yarn_log_multiplier": Typed("f32", 1.0),
            "attention.temperature_scale": Typed("f32", beta),
        }


class _FourTimes:
    """The width of MPT's feed-forward, which the configuration does not have."""

    def read(self, keys: Any, tensors: Any) -> dict[str, Any]:
        keys.value("attention.head_count_kv")
        return {}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        return {"feed_forward_length": Typed("u32", 4 * config["d_model"])}


class _FalconHeads:
    """Falcon's number of key/value heads and of norms, from which its generation follows."""

    def read(self, keys: Any, tensors: Any) -> dict[str, Any]:
        n_heads = keys.integer("attention.head_count")
        n_kv_heads = keys.integer("attention.head_count_kv", n_heads)
        norms = 2 if "blk.0.attn_norm_2.weight" in tensors else 1
        new = norms == 2 or n_kv_heads not in (1, n_heads)
        result = {"num_kv_heads": n_kv_heads, "multi_query": n_kv_heads == 1, "new_decoder_architecture": new}
        return {**result, "num_ln_in_parallel_attn": norms}

    def write(self, config: Mapping[str, Any]) -> dict[str, Typed]:
        new, shared = config["new_decoder_architecture"], config["multi_query"]
        heads = config["num_kv_heads"] if new else 1 if shared else config["num_attention_heads"]
        return {"attention.head_count_kv": Typed("u32", heads)}


DENSE_ARCHITECTURES = _dense()
